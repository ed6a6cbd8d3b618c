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

USER, LIBRARY, OURS = range(1, 4)


class Places:
    """Finds the place of the operation that runs now. Looking costs a few microseconds: no traceback is made.

    `until` is the code that calls the model: nothing above it belongs to the model.
    """

    def __init__(self, model: nn.Module, until: CodeType) -> None:
        self._layers = {id(module): name for name, module in layers_of(model)}
        self._until = until
        self._owners: dict[CodeType, int] = {}
        self._sources: dict[tuple[CodeType, int], Source] = {}

    def here(self) -> tuple[str, Source | None]:
        """Return the innermost layer on the stack and the innermost line that is neither a library's nor ours."""
        layer: str | None = None
        source: Source | None = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self._until and (layer is None or source is None):
            code = frame.f_code
            owner = self._owners.get(code) or self._owner(code)
            if owner != OURS and layer is None:
                layer = self._layer(frame)
            if owner == USER and source is None:
                source = self._source(code, frame.f_lineno)
            frame = frame.f_back
        return layer or "", source

    def of(self, traceback: TracebackType | None) -> tuple[str, Source | None]:
        """Return the place where an exception was raised."""
        frames = []
        while traceback is not None:
            frames.append((traceback.tb_frame, traceback.tb_lineno))
            traceback = traceback.tb_next
        layer = next((name for frame, _ in reversed(frames) if (name := self._layer(frame)) is not None), "")
        source = next((self._source(frame.f_code, line) for frame, line in reversed(frames) if self._owner(frame.f_code) == USER), None)
        return layer, source

    def _layer(self, frame: FrameType) -> str | None:
        names = frame.f_code.co_varnames
        if not names or names[0] != "self":
            return None
        # Until Python 3.13 the frame keeps this dict, and with it what its variables hold, until it is asked for again.
        return self._layers.get(id(frame.f_locals.get("self")))

    def _owner(self, code: CodeType) -> int:
        owner = self._owners.get(code)
        if owner is None:
            owner = self._owners[code] = _owner_of(code.co_filename)
        return owner

    def _source(self, code: CodeType, line: int) -> Source:
        source = self._sources.get((code, line))
        if source is None:
            function = getattr(code, "co_qualname", code.co_name)  # co_qualname: Python 3.11
            source = self._sources[code, line] = Source(code.co_filename, line, function)
        return source


def _owner_of(file: str) -> int:
    if file.startswith(_OURS) and file not in _MODELS:
        return OURS
    in_python = file.startswith(_PYTHON) and "-packages" not in file  # contextlib, functools
    return LIBRARY if in_python or file.startswith((_TORCH, "<frozen")) else USER
