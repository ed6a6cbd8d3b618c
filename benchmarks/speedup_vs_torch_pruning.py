"""nnc beside Torch-Pruning: what it costs to shrink real networks by half of their channels and heads, and how that grows with depth.

    make bench                          installs Torch-Pruning into build/peers and runs this
    python benchmarks/speedup_vs_torch_pruning.py --only BERT-base --json

CPU seconds are those of the whole process on one thread, without and with the proof that the small network computes what the masked one
does, for which both are run; Torch-Pruning proves nothing. Where a network has attention, Torch-Pruning is given the recipe that it needs
for heads. Each tool prunes each network in a process of its own, by turns, all in one run; read ratios, not milliseconds. Growth of peak
memory is the median over several processes: what an allocator keeps differs from one to the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nnc.latency import hardware

DEPTHS = (12, 24, 48)
NETWORKS = (
    "ResNet-50",
    "MobileNetV2",
    "ViT-B",
    "BERT-base",
    "BERT-base, 512 tokens",
    *(f"BERT, {depth} layers of 128" for depth in DEPTHS),
)
PEERS = ("nnc", "torch-pruning")
#: Processes that measure memory, for each tool and network.
PROCESSES = 5

Results = dict[tuple[str, str], dict[str, Any]]


def main(
    only: Annotated[list[str], typer.Option(help="Only these networks.")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prune each network with each tool and compare."""
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = [network for network in NETWORKS if not only or network in only]
    results: Results = {}
    for network in track(chosen, "pruning", console=Console(stderr=True)):
        costs = {peer: peers(peer, network, "seconds") for peer in PEERS}
        rounds = [{peer: peers(peer, network, "memory")["memory_growth"] for peer in PEERS} for _ in range(PROCESSES)]
        for peer in PEERS:
            results[network, peer] = costs[peer] | {"memory_growth": median(round[peer] for round in rounds)}
    if as_json:
        print(json.dumps({"hardware": hardware(), "results": [{"network": n, "peer": p, **r} for (n, p), r in results.items()]}, indent=2))
    else:
        Console().print(table(results), f"float32, one thread, {hardware()}", growth(results))


def peers(peer: str, network: str, what: str) -> dict[str, Any]:
    """Return what peers.py prints for one tool and one network."""
    script = Path(__file__).with_name("peers.py")
    done = subprocess.run([sys.executable, str(script), peer, network, what], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: Results) -> Table:
    """Return one row for each network and tool; the ratios are nnc's cost to Torch-Pruning's."""
    columns = ("network", "tool", "CPU s", "with proof", "memory", "parameters", "CPU ratio", "memory ratio")
    title = "Half of the channels and heads removed by L1 norm: CPU seconds to trace, group, score and shrink, and growth of peak memory"
    shown = Table(*columns, title=title, title_justify="left", box=SIMPLE)
    for (network, peer), result in results.items():
        memory = f"{result['memory_growth'] / 1e6:.0f} MB"
        seconds = (f"{result[key]:.3f}" for key in ("cpu_seconds", "cpu_seconds_in_all"))
        ratios = [f"{result[key] / results[network, 'torch-pruning'][key]:.2f}" for key in ("cpu_seconds", "memory_growth")]
        shown.add_row(network, peer, *seconds, memory, f"{result['parameters']:,}", *(ratios if peer == "nnc" else ["", ""]))
    return shown


def growth(results: Results) -> str:
    """Say how nnc's cost grows with depth: four times the layers should cost four times as much."""
    first, *_, last = DEPTHS
    names = [(f"BERT, {depth} layers of 128", "nnc") for depth in (first, last)]
    if not all(name in results for name in names):
        return ""
    shallow, deep = (results[name]["cpu_seconds"] for name in names)
    ratio = deep / shallow
    return f"From {first} to {last} layers nnc's cost grows {ratio:.1f} times."


if __name__ == "__main__":
    typer.run(main)
