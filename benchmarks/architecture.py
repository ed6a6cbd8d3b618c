"""One architecture: pruned by half and shrunk, checked, timed; prints JSON: `python architecture.py torch ResNet-50 proof`.

Half of the channels, heads and neurons leave by L1 norm over groups; the width under a LayerNorm stays. The proof is made here again,
on inputs other than the example: the masked model, run through its masks, against the small one.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

import nnc
from kinds import KINDS, Kind
from nnc.latency import hardware
from nnc.registry import adapter_for
from nnc.report import footprint
from nnc_pruning import L1NormPruner

HALF = [{"sparsity": 0.5}]


def measure(framework: str, name: str, part: str) -> dict[str, Any]:
    """Return what the table says of one architecture: the part "proof" (sizes, exactness, the peer) or "speed"."""
    kind = KINDS[framework]()
    build, inputs = kind.zoo[name]
    model, example = kind.built(build, 1), inputs(1)
    found = _proven(kind, model, build, inputs, example) if part == "proof" else _timed(kind, model, build, inputs, example)
    return found | {"hardware": hardware(), "versions": {each: version(each) for each in kind.packages}}


def _proven(kind: Kind, model: Any, build: Any, inputs: Any, example: Any) -> dict[str, Any]:
    small, masks, kept = shrunk(model, example)
    before, after = (_size(each, example) for each in (model, small))
    sizes = {"parameters": [before.parameters, after.parameters], "macs": [before.macs, after.macs], "kept": kept}
    proof = _proof(model, small, masks, kind.unseen(inputs))
    del small, masks
    gc.collect()
    return {**sizes, **proof, "peer": kind.peer(build, example)}


def _timed(kind: Kind, model: Any, build: Any, inputs: Any, example: Any) -> dict[str, Any]:
    return {"latency": kind.latencies(model, shrunk(model, example)[0], build, inputs, shrunk)}


def shrunk(model: Any, example: Any) -> tuple[Any, Any, int]:
    """Return the small model, the masks that made it, and for how many axes masked channels had to stay."""
    masks = L1NormPruner(model, HALF, example_inputs=example).propose()
    speedup = nnc.ModelSpeedup(model, example, masks)
    small = speedup.speedup_model()
    return small, masks, len(speedup.plan.kept)


def _size(model: Any, example: Any) -> Any:
    adapter = adapter_for(model)
    return footprint(adapter, adapter.structure(example))


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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measure(*sys.argv[1:])))
