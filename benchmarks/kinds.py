"""What the benchmark asks of each framework: its architectures, how fast a pair of models runs, and what a peer does with the same."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nnc
from cpu_time import medians_by_turns

BATCHES = (1, 8)


class Kind(ABC):
    """One kind of model. `packages` are those whose versions matter."""

    packages: tuple[str, ...]
    zoo: dict[str, tuple[Callable[..., Any], Callable[[int], Any]]]

    def built(self, build: Callable[..., Any], batch: int) -> Any:
        return build()

    def unseen(self, inputs: Callable[[int], Any]) -> Any:
        """Return inputs that differ from the example."""
        return inputs(2)

    @abstractmethod
    def latencies(self, model: Any, small: Any, build: Any, inputs: Any, shrunk: Any) -> dict[str, Any]:
        """Return CPU seconds of the original and of the small model, by where they run and by batch."""

    def peer(self, build: Any, example: Any) -> Any:
        """Return what a peer does, None where there is none."""
        return None


class Framework(Kind):
    """A framework whose models run in it, and as files in ONNX Runtime."""

    def latencies(self, model: Any, small: Any, build: Any, inputs: Any, shrunk: Any) -> dict[str, Any]:
        places = {"framework": self.framework, "onnxruntime": self.onnxruntime}
        return {
            name: {str(b): attempt(lambda w=where, b=b: w((model, small), inputs(b))) for b in BATCHES} for name, where in places.items()
        }

    @abstractmethod
    def framework(self, models: Any, inputs: Any) -> list[float]:
        """Return CPU seconds of one pass of each model in the framework."""

    @abstractmethod
    def onnxruntime(self, models: Any, inputs: Any) -> list[float]:
        """Return CPU seconds of one pass of each model as a file in ONNX Runtime."""


class Torch(Framework):
    packages = ("torch", "transformers", "onnxruntime", "numpy")

    def __init__(self) -> None:
        import torch

        from torch_zoo import ARCHITECTURES

        torch.set_num_threads(1)
        self.zoo = ARCHITECTURES

    def framework(self, models: Any, inputs: Any) -> list[float]:
        import torch

        with torch.inference_mode():
            return medians_by_turns([lambda model=model: model(**inputs) for model in models])

    def onnxruntime(self, models: Any, inputs: Any) -> list[float]:
        from onnx_runtime import export_torch

        return exported(models, inputs, [tensor.numpy() for tensor in inputs.values()], export_torch)

    def peer(self, build: Any, example: Any) -> Any:
        from torch_pruning_peer import torch_pruning

        return torch_pruning(build, example)


class Keras(Framework):
    packages = ("tensorflow", "keras", "keras-hub", "tf2onnx", "onnxruntime", "numpy")

    def __init__(self) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        from keras_zoo import ARCHITECTURES

        self.zoo, self._folder = ARCHITECTURES, tempfile.TemporaryDirectory()

    def framework(self, models: Any, inputs: Any) -> list[float]:
        import tensorflow as tf

        given = tf.nest.map_structure(tf.constant, inputs)
        compiled = [tf.function(lambda given, model=model: model(given, training=False)) for model in models]
        return medians_by_turns([lambda call=call: call(given) for call in compiled])

    def onnxruntime(self, models: Any, inputs: Any) -> list[float]:
        arrays = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
        return _timed(self._files(models, inputs), arrays)

    def _files(self, models: Any, inputs: Any) -> list[Path]:
        """Return the models as files, written once: any batch fits them."""
        paths = [Path(self._folder.name) / f"{number}.onnx" for number, _ in enumerate(models)]
        for path, model in zip(paths, models, strict=True):
            if not path.exists():
                nnc.export(model, path, inputs)
        return paths


class Onnx(Kind):
    """Files: one for each batch, pruned anew."""

    packages = ("torch", "tensorflow", "onnx", "tf2onnx", "onnxruntime", "numpy")

    def __init__(self) -> None:
        from onnx_zoo import ARCHITECTURES

        self.zoo = ARCHITECTURES

    def built(self, build: Callable[..., Any], batch: int) -> Any:
        return build(batch)

    def unseen(self, inputs: Callable[[int], Any]) -> Any:
        return [array[1:] for array in inputs(2)]

    def latencies(self, model: Any, small: Any, build: Any, inputs: Any, shrunk: Any) -> dict[str, Any]:
        def pair(batch: int) -> list[float]:
            if batch == 1:
                return saved((model, small), inputs(1))
            larger = build(batch)
            return saved((larger, shrunk(larger, inputs(batch))[0]), inputs(batch))

        return {"onnxruntime": {str(batch): attempt(lambda b=batch: pair(b)) for batch in BATCHES}}


def attempt(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or why it does not: a format that cannot hold a network is a fact for the table."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def exported(models: Any, inputs: Any, arrays: list[np.ndarray], export: Callable[..., Path]) -> list[float]:
    """Return the CPU seconds of models in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        return _timed([export(model, inputs, Path(folder) / f"{number}.onnx") for number, model in enumerate(models)], arrays)


def saved(models: Any, arrays: list[np.ndarray]) -> list[float]:
    """Return the CPU seconds of files."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number, _ in enumerate(models)]
        for path, model in zip(paths, models, strict=True):
            onnx.save(model, path)
        return _timed(paths, arrays)


def _timed(paths: list[Path], arrays: list[np.ndarray]) -> list[float]:
    from onnx_runtime import runner

    return medians_by_turns([runner(path, arrays) for path in paths])


KINDS: dict[str, Callable[[], Kind]] = {"torch": Torch, "keras": Keras, "onnx": Onnx}
