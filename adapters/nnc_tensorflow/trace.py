"""One forward pass as TensorFlow's graph of a concrete function, and who asked for each of its operations.

The pass is traced with concrete shapes, so that no shape arithmetic is left, and with nested functions inlined. Variables are found
through the function's captures, which hold them by identity.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import keras
import tensorflow as tf

import nnc
from nnc.errors import ConfigError, TraceError
from nnc.graph.ir import Graph, Source
from nnc_tensorflow.recurrent import runs_whole

_LOCK = threading.RLock()
_OURS = (os.path.dirname(os.path.abspath(nnc.__file__)) + os.sep, os.path.dirname(os.path.abspath(__file__)) + os.sep)
_PACKAGES = tuple(os.path.dirname(os.path.abspath(package.__file__)) + os.sep for package in (keras, tf))


@dataclass(frozen=True)
class Call:
    """One call of a layer that is read as a whole: what it was given, what it made, and its operations by name."""

    path: str
    layer: keras.Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    operations: tuple[str, ...]


@dataclass
class Recording:
    """TensorFlow's graph of a forward pass, and for each of its operations (by name) the path of the layer in whose call it was made.

    `layers` are the model's layers by path, and the operations of Functional models that are no layers.
    `calls` are those of recurrent layers.
    """

    layers: dict[str, keras.Operation]
    owners: dict[str, str] = field(default_factory=dict)
    graph: Any = None
    inputs: tuple[Any, ...] = ()
    calls: list[Call] = field(default_factory=list)

    def source(self, op: Any) -> Source | None:
        """Return the user's line that asked for an operation, or None where only Keras' own code did."""
        frames = [(frame.filename, frame.lineno, frame.name) for frame in op.traceback]
        return user_line(frames, self.layers.get(self.owners.get(op.name, "")))


def record(infer: Callable[..., Any], tensors: Sequence[tf.Tensor], recording: Recording, read: Callable[[], Graph]) -> Any:
    """Trace `infer` on tensors of these shapes into `recording`, and return the concrete function.

    Raises `ConfigError` where a layer refuses the inputs, else `TraceError` with what `read()` makes of the operations so far.
    """
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]

    def noted(*values: Any) -> Any:
        # Held here, the graph of a pass that fails can still be read up to the failure.
        recording.graph, recording.inputs = tf.compat.v1.get_default_graph(), values
        return infer(*values)

    with _LOCK, _inlined(), _calls_recorded(recording):
        try:
            return tf.function(noted, autograph=False).get_concrete_function(*specs)
        except Exception as error:
            raise failure(error, specs, read()) from error


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """Note meanwhile in whose call each operation is made that TensorFlow traces; nested functions are inlined."""
    with _LOCK, _inlined(), _calls_recorded(recording):
        yield


def user_line(frames: Sequence[tuple[str, int, str]], layer: Any) -> Source | None:
    """Return the innermost line outside of Keras, TensorFlow and nnc, looking no further out than nnc's own call of the model."""
    for file, line, name in reversed(frames):
        if file.startswith(_OURS):
            return None
        if not _foreign(file):
            return Source(file, line, _qualified(name, file, line, layer))
    return None


def _foreign(file: str) -> bool:
    """Tell whether a file belongs to Keras, TensorFlow, or Python's own machinery."""
    return file.startswith(_PACKAGES) or file.startswith("<") or f"{os.sep}contextlib.py" in file or f"{os.sep}threading.py" in file


def _qualified(name: str, file: str, line: int, layer: Any) -> str:
    """Return `Net.call` for `call`, where a class of the layer defines the function at that place.

    A lambda or a comprehension has the name of the function around it, as `Net.call.<locals>.<lambda>`.
    """
    classes = layer.__class__.__mro__ if layer is not None else ()
    if name.startswith("<"):
        inside = (f"{cls.__qualname__}.{found}" for cls in classes if (found := _inside(vars(cls).values(), name, file, line)))
        return next(inside, "") or _around(name, file, line)
    for cls in classes:
        code = getattr(cls.__dict__.get(name), "__code__", None)
        if code is not None and code.co_filename == file and code.co_firstlineno <= line:
            return f"{cls.__qualname__}.{name}"
    return name


@lru_cache(maxsize=1024)
def _around(name: str, file: str, line: int) -> str:
    """Return the name of a lambda or a comprehension after that of the plain function around it."""
    own = next((module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == file), None)
    return _inside(vars(own).values() if own is not None else (), name, file, line) or name


def _inside(functions: Iterable[Any], name: str, file: str, line: int) -> str:
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    return next((found for code in codes if code.co_filename == file and (found := _within(code, name, line))), "")


def _within(code: CodeType, name: str, line: int) -> str:
    """Return the name of the code that is called `name` and has a line, seen from the outermost code; "" where there is none."""
    if code.co_name == name and any(number == line for *_, number in code.co_lines()):
        return name
    inner = (_within(each, name, line) for each in code.co_consts if isinstance(each, CodeType))
    return next((f"{code.co_name}.<locals>.{found}" for found in inner if found), "")


@contextmanager
def _inlined() -> Iterator[None]:
    """Run nested tf.functions as part of the traced one: grouped convolutions are such calls on a CPU."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def unfused() -> Iterator[None]:
    """Keep TensorFlow from fusing a bias into a grouped convolution: what it then runs on some CPUs knows no groups."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": before.get("remapping", True)})


@contextmanager
def _calls_recorded(recording: Recording) -> Iterator[None]:
    """Note for each operation made meanwhile, in this thread, the innermost layer whose call makes it."""
    paths = {id(layer): path for path, layer in recording.layers.items()}
    thread = threading.get_ident()

    def noting(plain: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(self))
            if path is None or threading.get_ident() != thread or tf.executing_eagerly():
                return plain(self, *args, **kwargs)
            graph = tf.compat.v1.get_default_graph()
            start = len(graph.get_operations())
            try:
                result = plain(self, *args, **kwargs)
            finally:
                made = graph.get_operations()[start:]
                for op in made:
                    recording.owners.setdefault(op.name, path)
            if runs_whole(self) and plain is before[0][1]:
                recording.calls.append(Call(path, self, args, kwargs, result, tuple(op.name for op in made)))
            return result

        return noted

    before = [(cls, cls.__dict__["__call__"]) for cls in (keras.Layer, keras.Operation)]
    try:
        for cls, plain in before:
            cls.__call__ = noting(plain)
        yield
    finally:
        for cls, plain in before:
            cls.__call__ = plain


def failure(error: Exception, specs: Sequence[Any], graph: Graph | None = None, given: str = "example_inputs") -> Exception:
    """Return what to raise for a model that failed on what it was `given`; `graph` holds the nodes up to the failure."""
    shapes = ", ".join(f"{tuple(spec.shape)} {spec.dtype.name}" for spec in specs)
    source = _failed_line(error)
    reason = f"{type(error).__name__}: {_short(error)}"
    if source is None and isinstance(error, (ValueError, TypeError)):
        return ConfigError(f"{given}: the model does not accept {shapes}: {reason}")
    place = f"{source}, in {source.function}" if source else "the model"
    return TraceError(f"{place}: the model failed on {given.replace('_', ' ')} of shape {shapes}: {reason}", graph, source)


def _failed_line(error: BaseException) -> Source | None:
    """Return the user's line that an exception passed through, the innermost one."""
    seen: BaseException | None = error
    while seen is not None:
        frames, trace = [], seen.__traceback__
        while trace is not None:
            frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_frame))
            trace = trace.tb_next
        for file, line, frame in reversed(frames):
            if not file.startswith(_OURS) and not _foreign(file):
                return Source(file, line, _qualified(frame.f_code.co_name, file, line, frame.f_locals.get("self")))
        seen = seen.__cause__
    return None


def _short(error: Exception) -> str:
    """Return the lines of Keras' message that say what is wrong, without its list of arguments."""
    text = str(error).split("Arguments received by")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Exception encountered")]
    return " ".join(lines).replace("\x1b[1m", "").replace("\x1b[0m", "")
