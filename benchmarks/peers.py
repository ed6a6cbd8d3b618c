"""One tool prunes one network, in a process of its own, and prints what that cost as JSON: `python peers.py nnc resnet50`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch

from networks import HEADS, INPUTS, NETWORKS
from nnc.latency import medians_by_turns

ROUNDS = 5


#: The small network, and the CPU seconds of trace + plan + shrink where a tool tells them apart.
Pruned = tuple[torch.nn.Module, float | None]


def prune_with_nnc(model: torch.nn.Module, example: torch.Tensor, head: str) -> Pruned:
    """Score groups by L1, mask half of their channels, trace, plan, shrink, and check the small model against the masked one."""
    import nnc
    from nnc_pruning import L1NormPruner

    config_list = [{"op_types": ["Conv2d", "Linear"], "sparsity": 0.5}, {"op_names": [head], "exclude": True}]
    pruner = L1NormPruner(model, config_list, example_inputs=example)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    speedup = nnc.ModelSpeedup(model, example, masks)
    small = speedup.speedup_model()
    return small, sum(speedup.seconds[step] for step in ("trace", "plan", "shrink"))


def prune_with_torch_pruning(model: torch.nn.Module, example: torch.Tensor, head: str) -> Pruned:
    """Build the dependency graph, score groups by L1, and cut half of their channels, in place."""
    import torch_pruning

    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    ignored = [model.get_submodule(head)]
    torch_pruning.pruner.BasePruner(model, example, importance=importance, pruning_ratio=0.5, ignored_layers=ignored).step()
    return model, None


PEERS = {"nnc": prune_with_nnc, "torch-pruning": prune_with_torch_pruning}


def measure(peer: str, network: str) -> dict[str, Any]:
    """Return CPU seconds (median of `ROUNDS` fresh networks), the growth of peak memory, the parameters, and latencies."""
    # Imports and lazy set-up are not what is measured.
    _prune(peer, "lenet")
    growth = _memory_growth(peer, network)
    rounds = [_prune(peer, network) for _ in range(ROUNDS)]
    small = rounds[0][2]
    return {
        "cpu_seconds": median(core for _, core, _ in rounds),
        "cpu_seconds_in_all": median(seconds for seconds, _, _ in rounds),
        "memory_growth": growth,
        "parameters": sum(parameter.numel() for parameter in small.parameters()),
        "latency": {batch: _latencies(network, small, batch) for batch in (1, 8)},
    }


def _prune(peer: str, network: str) -> tuple[float, float, torch.nn.Module]:
    """Return the CPU seconds in all, those of trace + plan + shrink, and the small network."""
    model, example = _fresh(network)
    start = process_time()
    small, core = PEERS[peer](model, example, HEADS[network])
    seconds = process_time() - start
    return seconds, seconds if core is None else core, small


def _fresh(network: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = NETWORKS[network]().eval()
    example = torch.randn(1, *INPUTS[network])
    # oneDNN's one-time preparation belongs to neither tool.
    with torch.no_grad():
        model(example)
    return model, example


def _memory_growth(peer: str, network: str) -> int:
    """Return by how many bytes the peak of resident memory while pruning exceeds what was resident before it."""
    model, example = _fresh(network)
    before = _resident("VmRSS")
    # "5" makes the kernel start the high-water mark anew (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    PEERS[peer](model, example, HEADS[network])
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _latencies(network: str, small: torch.nn.Module, batch: int) -> list[float]:
    """Return the median seconds of the original and of the small network, measured by turns."""
    original = NETWORKS[network]().eval()
    images = torch.randn(batch, *INPUTS[network])
    with torch.inference_mode():
        return medians_by_turns([lambda: original(images), lambda: small(images)], repeats=15)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(*sys.argv[1:])))
