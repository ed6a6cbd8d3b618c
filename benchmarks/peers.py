"""One tool prunes one network, in a process of its own, and prints what that cost as JSON: `python peers.py nnc ResNet-50 seconds`.

`seconds` are of the CPU; `memory` is how much the peak grew by, of which the first pruning in a process tells most.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch

from networks import NETWORKS
from torch_pruning_peer import prune

ROUNDS = 5

#: The small network, and the CPU seconds that its proof took: Torch-Pruning proves nothing.
Pruned = tuple[torch.nn.Module, float]


def prune_with_nnc(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Pruned:
    """Score groups by L1, mask half of their channels, trace, plan, shrink, and check the small model against the masked one."""
    import nnc
    from nnc_pruning import L1NormPruner

    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=inputs).propose()
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    return speedup.speedup_model(), speedup.seconds["check"]


def prune_with_torch_pruning(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Pruned:
    """Build the dependency graph, score groups by L1, and cut half of their channels and heads, in place."""
    prune(model, inputs, recipe=True)
    return model, 0.0


PEERS = {"nnc": prune_with_nnc, "torch-pruning": prune_with_torch_pruning}


def seconds(peer: str, network: str) -> dict[str, Any]:
    """Return CPU seconds (median of `ROUNDS` fresh networks) without and with the proof, and parameters."""
    # Imports and lazy set-up are not what is measured.
    _prune(peer, "warm-up")
    rounds = [_prune(peer, network) for _ in range(ROUNDS)]
    return {
        "cpu_seconds": median(spent - proof for spent, proof, _ in rounds),
        "cpu_seconds_in_all": median(spent for spent, _, _ in rounds),
        "parameters": rounds[0][2],
    }


def _prune(peer: str, network: str) -> tuple[float, float, int]:
    """Return the CPU seconds in all, those of the proof, and the parameters of the small network."""
    model, inputs = _fresh(network)
    start = process_time()
    small, proof = PEERS[peer](model, inputs)
    spent = process_time() - start
    return spent, proof, sum(parameter.numel() for parameter in small.parameters())


def _fresh(network: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    build, inputs = NETWORKS[network]
    model, example = build(), inputs(1)
    # oneDNN's one-time preparation belongs to neither tool.
    with torch.no_grad():
        model(**example)
    return model, example


def memory(peer: str, network: str) -> dict[str, Any]:
    """Return by how many bytes the peak of resident memory while pruning exceeds what was resident before it."""
    _prune(peer, "warm-up")
    model, inputs = _fresh(network)
    before = _resident("VmRSS")
    # "5" makes the kernel start the high-water mark anew (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    PEERS[peer](model, inputs)
    return {"memory_growth": _resident("VmHWM") - before}


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    peer, network, what = sys.argv[1:]
    print(json.dumps({"seconds": seconds, "memory": memory}[what](peer, network)))
