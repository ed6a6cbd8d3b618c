"""Where an operation was asked for: the layer that ran it and the user's source line, read from the Python stack."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType, TracebackType

import torch
from torch import nn

from nnc.graph.ir import Source
from nnc_torch.layers import layers_of

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(__file__) + os.sep
_PYTHON = os.path.dirname(os.__file__) + os.sep


#: Files of ours that hold models, which are a user's code like any other.
_MODELS = tuple(_OURS + name for name in ("demo.py", "examples.py"))

USER, LIBRARY, OURS = range(3)


class Places:
    """Finds the place of the operation that runs now. Looking costs a few microseconds: no traceback is made.

    `until` is the code that calls the model: nothing above it belongs to the model.
    """

    def __init__(self, model: nn.Module, until: CodeType) -> None:
        layers = layers_of(model)
        self._layers = {id(module): name for name, module in layers}
        self.attentions = frozenset(name for name, module in layers if isinstance(module, nn.MultiheadAttention))
        self._until = until
        self._kinds: dict[CodeType, tuple[int, bool]] = {}
        self._sources: dict[tuple[CodeType, int], Source] = {}

    def here(self) -> tuple[str, Source | None]:
        """Return the innermost layer on the stack and the innermost line that is neither a library's nor ours."""
        layer: str | None = None
        source: Source | None = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self._until and (layer is None or source is None):
            owner, is_method = self._kinds.get(frame.f_code) or self._kind(frame.f_code)
            if is_method and owner != OURS and layer is None:
                layer = self._layer(frame)
            if owner == USER and source is None:
                source = self._source(frame.f_code, frame.f_lineno)
            frame = frame.f_back
        return layer or "", source

    def of(self, traceback: TracebackType | None) -> tuple[str, Source | None]:
        """Return the place where an exception was raised."""
        frames = []
        while traceback is not None:
            frames.append((traceback.tb_frame, traceback.tb_lineno))
            traceback = traceback.tb_next
        kinds = [self._kind(frame.f_code) for frame, _ in frames]
        places = list(zip(frames, kinds, strict=True))[::-1]
        layer = next((name for (frame, _), kind in places if kind[1] and (name := self._layer(frame)) is not None), "")
        source = next((self._source(frame.f_code, line) for (frame, line), kind in places if kind[0] == USER), None)
        return layer, source

    def _layer(self, frame: FrameType) -> str | None:
        # Until Python 3.13 the frame keeps this dict, and with it what its variables hold, until it is asked for again.
        return self._layers.get(id(frame.f_locals.get("self")))

    def _kind(self, code: CodeType) -> tuple[int, bool]:
        """Return whose code it is, and whether it is a method's."""
        kind = self._kinds[code] = _owner_of(code.co_filename), code.co_varnames[:1] == ("self",)
        return kind

    def _source(self, code: CodeType, line: int) -> Source:
        source = self._sources.get((code, line))
        if source is None:
            function = getattr(code, "co_qualname", code.co_name)  # co_qualname: Python 3.11
            source = self._sources[code, line] = Source(code.co_filename, line, function)
        return source


def failed_at(model: nn.Module, error: BaseException) -> tuple[str, Source | None]:
    """Return the layer, or the model, in which an exception was raised, in words with the user's line; and that line."""
    layer, source = Places(model, failed_at.__code__).of(error.__traceback__)
    return f"{layer or type(model).__name__}" + (f" ({source})" if source else ""), source


def _owner_of(file: str) -> int:
    if file.startswith(_OURS) and file not in _MODELS:
        return OURS
    in_python = file.startswith(_PYTHON) and "-packages" not in file  # contextlib, functools
    return LIBRARY if in_python or file.startswith((_TORCH, "<frozen")) else USER
