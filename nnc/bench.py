"""How fast, how large and how right models are, side by side: the original against its variants, whatever made them.

    nnc bench lenet.onnx lenet_int8.onnx "net.py:build" --example 1,1,28,28

All models run by turns in one process, so that what else the machine does falls on all of them alike. What a model takes of memory is
measured in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc.adapter import Adapter
from nnc.arguments import whole_number
from nnc.errors import ConfigError, ModelError, NncError
from nnc.examples import Example, random_arrays
from nnc.graph.ir import Array
from nnc.labels import checked_labels, right_answers
from nnc.latency import hardware, medians_by_turns
from nnc.locate import locate
from nnc.registry import adapter_for

if TYPE_CHECKING:
    from rich.console import RenderableType

WARM_UP = 20
#: Where frameworks and runtimes look for how many threads they may start; they look once, when they are imported.
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True)
class Measured:
    """One model: median seconds of a call, bytes on disk, the peak of a process that runs it in bytes, the share of right answers.

    Memory is None where it was not asked for, accuracy where there is no data.
    """

    name: str
    framework: str
    seconds: float
    size: int
    memory: int | None
    accuracy: float | None = None


@dataclass(frozen=True)
class Bench:
    """What was measured; the first model is the original that the others are set against."""

    models: tuple[Measured, ...]
    conditions: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: seconds, bytes, fractions; `speed` is how many times as fast as the first model."""
        first = self.models[0].seconds
        return {"models": [{**vars(one), "speed": first / one.seconds} for one in self.models], "conditions": self.conditions}

    def __rich__(self) -> RenderableType:
        from nnc.tables import bench_table

        return bench_table(self)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


def bench(
    models: Sequence[Any],
    examples: Sequence[Example] = (),
    *,
    data: Mapping[str, Array] | None = None,
    repeats: int = 50,
    memory: bool = True,
) -> Bench:
    """Measure models by turns; each is what `nnc.locate.locate` finds, or a model itself.

    `examples` are the inputs' shapes, in order; `data` has arrays for the same inputs, in that order, and "labels" `(n,)`: the first
    output's largest entry is the answer. Memory is measured of models that are named, not of those that are given.
    Raises `ConfigError`, `ModelError` or `TraceError` where a model is not found or does not run.
    """
    if not models:
        raise ConfigError("models: name at least one.")
    repeats = whole_number("repeats", repeats, meaning="it is how often each model is timed")
    inputs = [array for name, array in (data or {}).items() if name != "labels"]
    if not examples and not inputs:
        raise ConfigError("--example: give the shape of each input, as --example 1,3,224,224; or --data with inputs in it.")
    labels = None if data is None else _labels(data, inputs)
    adapters = [adapter_for(locate(model) if isinstance(model, str) else model) for model in models]
    arrays = random_arrays(examples) or [array[:1] for array in inputs]
    for model, adapter in zip(models, adapters, strict=True):
        _outputs(model, adapter, arrays)
    seconds = medians_by_turns([partial(adapter.run, _given(adapter, arrays)) for adapter in adapters], repeats, WARM_UP)
    measured = []
    for model, adapter, taken in zip(models, adapters, seconds, strict=True):
        named = isinstance(model, str)
        peak = _memory(model, arrays) if named and memory else None
        right = None if labels is None else accuracy(adapter, inputs, labels, _name(model))
        measured.append(Measured(_name(model), adapter.framework, taken, _size(model, adapter), peak, right))
    batch = arrays[0].shape[0] if arrays[0].ndim else 1
    return Bench(tuple(measured), f"batch {batch}, median of {repeats} runs by turns after {WARM_UP} to warm up, on {hardware()}")


def _labels(data: Mapping[str, Array], inputs: Sequence[Array]) -> Array:
    if "labels" not in data or not inputs:
        raise ConfigError(f"--data: needs the inputs and 'labels'; it holds {', '.join(data) or 'nothing'}.")
    return checked_labels(data["labels"], [len(array) if array.ndim else 0 for array in inputs])


def accuracy(adapter: Adapter, inputs: Sequence[Array], labels: Array, name: str, batch: int = 256) -> float:
    """Return the share of samples whose label is the largest entry of the first output of the model, which is called `name`."""
    right = 0
    for start in range(0, len(labels), batch):
        part = [array[start : start + batch] for array in inputs]
        right += right_answers(_outputs(name, adapter, part)[0], labels[start : start + batch])
    return right / len(labels)


def use_threads(count: int) -> None:
    """Let frameworks and runtimes start so many threads. Raises `ConfigError` where one of them is imported already."""
    late = [name for name in ("torch", "tensorflow", "onnxruntime") if name in sys.modules]
    if late:
        raise ConfigError(f"--threads: {', '.join(late)} is imported already; set OMP_NUM_THREADS in the environment instead.")
    for name in _THREADS:
        os.environ[name] = str(count)


def _name(model: Any) -> str:
    return model if isinstance(model, str) else type(model).__name__


def _outputs(model: Any, adapter: Adapter, arrays: Sequence[Array]) -> tuple[Any, ...]:
    """Run a model. Raises `ModelError` that names it and what it was given where it fails."""
    try:
        return adapter.run(_given(adapter, arrays))
    except NncError:
        raise
    except Exception as error:
        given = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"{_name(model)}: failed on inputs of {given}: {type(error).__name__}: {reason}") from error


def _given(adapter: Adapter, arrays: Sequence[Array]) -> Any:
    """Return inputs as the model's framework takes them."""
    layers = adapter.layers()
    own = [layers[0].ops.asarray(array) for array in arrays] if layers else list(arrays)
    return own[0] if len(own) == 1 else tuple(own)


def _size(model: Any, adapter: Adapter) -> int:
    """Return what a model takes on disk, or as bare numbers where it is code that builds it."""
    path = Path(model) if isinstance(model, str) else None
    if path is not None and path.is_file():
        return path.stat().st_size
    if path is not None and path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return sum(array.nbytes for array in adapter.tensors().values())


def _memory(model: str, arrays: Sequence[Array]) -> int:
    """Return the largest size in bytes of a fresh process that loads the model, with its framework, and runs it once."""
    shapes = [f"{','.join(map(str, array.shape))}:{array.dtype}" for array in arrays]
    command = [sys.executable, "-m", "nnc.bench", json.dumps([model, shapes])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(f"{model}: failed in a process of its own: {done.stderr.strip().rpartition(chr(10))[2]}")
    return int(done.stdout.strip().rpartition("\n")[2])


def _run_alone(model: str, shapes: Sequence[str]) -> int:
    adapter = adapter_for(locate(model))
    adapter.run(_given(adapter, random_arrays([Example.parse(shape) for shape in shapes])))
    return _peak()


def _peak() -> int:
    """Return the largest size that this process had so far, in bytes."""
    # ru_maxrss is inherited from the process that started this one; the kernel's own high-water mark is not.
    status = Path("/proc/self/status")
    marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    if marks:
        return 1024 * int(marks[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    try:
        print(_run_alone(*json.loads(sys.argv[1])))
    except NncError as error:
        sys.exit(str(error))
