"""One architecture: pruned by half and shrunk, checked, timed; prints JSON: `python architecture.py torch ResNet-50 proof speed`.

Half of the channels, heads and neurons leave by L1 norm over groups; the width under a LayerNorm stays. The proof is made here again,
on inputs other than the example: the masked model, run through its masks, against the small one.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

import nnc
from kinds import KINDS
from nnc.latency import hardware
from nnc.registry import adapter_for
from nnc.report import footprint
from nnc_pruning import L1NormPruner

HALF = [{"sparsity": 0.5}]


def measure(framework: str, name: str, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield, part by part, what the table says of one architecture: "proof" (sizes, exactness, the peer) or "speed"."""
    kind = KINDS[framework]()
    build, inputs = kind.zoo[name]
    model, example = kind.built(build, 1), inputs(1)
    small, masks, kept = shrunk(model, example)
    conditions = {"hardware": hardware(), "versions": {each: version(each) for each in kind.packages}}
    for part in parts:
        if part == "proof":
            before, after = (_size(each, example) for each in (model, small))
            sizes = {"parameters": [before.parameters, after.parameters], "macs": [before.macs, after.macs], "kept": kept}
            proof = _proof(model, small, masks, kind.unseen(inputs))
            yield {**sizes, **proof, "peer": kind.peer(build, example), **conditions}
        else:
            yield {"latency": kind.latencies(model, small, build, inputs, shrunk), **conditions}


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
    for found in measure(*sys.argv[1:3], sys.argv[3:]):
        print(json.dumps(found), flush=True)
