"""One architecture: pruned by half and shrunk, checked, timed; prints JSON: `python architecture.py torch ResNet-50`.

Half of the channels, heads and neurons leave by L1 norm over groups; the width under a LayerNorm stays. The proof is made here again,
on inputs other than the example: the masked model, run through its masks, against the small one.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import nnc
from cpu_time import medians_by_turns
from nnc.latency import hardware
from nnc.registry import adapter_for
from nnc.report import footprint
from nnc_pruning import L1NormPruner

HALF = [{"sparsity": 0.5}]
BATCHES = (1, 8)


def measure(framework: str, name: str) -> dict[str, Any]:
    """Return all that the table says of one architecture."""
    kind = FRAMEWORKS[framework]()
    build, inputs = kind.zoo[name]
    model, example = build(), inputs(1)
    pruner = L1NormPruner(model, HALF, example_inputs=example)
    start = process_time()
    masks = pruner.propose()
    speedup = nnc.ModelSpeedup(model, example, masks)
    small = speedup.speedup_model()
    seconds = process_time() - start
    before, after = (_size(each, example) for each in (model, small))
    result = {
        "parameters": [before.parameters, after.parameters],
        "macs": [before.macs, after.macs],
        "seconds": seconds,
        **_proof(model, small, masks, inputs(2 if kind.any_batch else 1)),
        "kept": len(speedup.plan.kept),
    }
    del pruner, speedup, masks
    gc.collect()
    latency = kind.latencies(model, small, inputs)
    del model, small
    gc.collect()
    peer = kind.peer(build, example)
    return result | {"latency": latency, "peer": peer, "hardware": hardware(), "versions": {each: version(each) for each in kind.packages}}


def _size(model: Any, example: Any) -> Any:
    adapter = adapter_for(model)
    return footprint(adapter, adapter.trace(example, {}).graph)


def _proof(model: Any, small: Any, masks: Any, inputs: Any) -> dict[str, float]:
    """Return how far the small model is from the masked one, and how far the masks moved the model, relative to the largest output."""
    adapter = adapter_for(model)
    original, found = adapter.run(inputs), adapter_for(small).run(inputs)
    adapter.set_masks(masks)
    masked = adapter.run(inputs)
    adapter.set_masks({})
    return {"difference": _apart(masked, found), "moved": _apart(original, masked)}


def _apart(left: Any, right: Any) -> float:
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a.dtype.kind == "f" and a.size]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def _attempt(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or why it does not: a format that cannot hold a network is a fact for the table."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]


class Torch:
    """Networks of torch: timed as they are, and exported."""

    packages = ("torch", "transformers", "onnxruntime", "numpy")
    any_batch = True

    def __init__(self) -> None:
        import torch

        from torch_zoo import ARCHITECTURES

        torch.set_num_threads(1)
        self.zoo = ARCHITECTURES

    def latencies(self, *args: Any) -> dict[str, Any]:
        return {"framework": _by_batch(self._eager, *args), "onnxruntime": _by_batch(self._exported, *args)}

    def _eager(self, models: Any, inputs: Any) -> list[float]:
        import torch

        with torch.inference_mode():
            return medians_by_turns([lambda model=model: model(**inputs) for model in models])

    def _exported(self, models: Any, inputs: Any) -> list[float]:
        from onnx_runtime import export_torch

        return _in_onnx_runtime(models, inputs, [array.numpy() for array in inputs.values()], export_torch)

    def peer(self, build: Any, example: Any) -> Any:
        from torch_pruning_peer import torch_pruning

        return torch_pruning(build, example)


def _by_batch(timed: Callable[..., list[float]], model: Any, small: Any, inputs: Callable[[int], Any]) -> dict[str, Any]:
    return {str(batch): _attempt(lambda batch=batch: timed((model, small), inputs(batch))) for batch in BATCHES}


def _in_onnx_runtime(models: Any, inputs: Any, arrays: list[np.ndarray], export: Callable[..., Path]) -> list[float]:
    from onnx_runtime import runner

    with tempfile.TemporaryDirectory() as folder:
        paths = [export(model, inputs, Path(folder) / f"{number}.onnx") for number, model in enumerate(models)]
        return medians_by_turns([runner(path, arrays) for path in paths])


FRAMEWORKS: dict[str, Callable[[], Any]] = {"torch": Torch}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measure(*sys.argv[1:])))
