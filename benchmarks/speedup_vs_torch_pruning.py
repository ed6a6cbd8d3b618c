"""nnc beside Torch-Pruning: what it costs to shrink LeNet and ResNet-50 by half of their channels, and how fast they are then.

    make bench                          installs Torch-Pruning into build/peers and runs this
    python benchmarks/speedup_vs_torch_pruning.py --json

CPU seconds are those of the whole process on one thread: of trace + plan + shrink, and in all. In all means for nnc also scoring the
groups (a trace of its own) and the proof, which runs the masked and the small network; Torch-Pruning scores while it prunes and
proves nothing. Each tool prunes each network in a process of its own, all in one run; read ratios, not milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nnc.latency import hardware

NETWORKS = ("lenet", "resnet50")
PEERS = ("nnc", "torch-pruning")


def main(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Prune each network with each tool and compare."""
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = [(network, peer) for network in NETWORKS for peer in PEERS]
    console = Console(stderr=True)
    results = {(network, peer): measure(peer, network) for network, peer in track(runs, "pruning", console=console)}
    if as_json:
        print(json.dumps({"hardware": hardware(), "results": [{"network": n, "peer": p, **r} for (n, p), r in results.items()]}, indent=2))
    else:
        Console().print(table(results), f"float32, one thread, {hardware()}")


def measure(peer: str, network: str) -> dict[str, Any]:
    """Return what peers.py prints for one tool and one network."""
    script = Path(__file__).with_name("peers.py")
    done = subprocess.run([sys.executable, str(script), peer, network], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(results: dict[tuple[str, str], dict[str, Any]]) -> Table:
    """Return one row for each network and tool."""
    columns = ("network", "tool", "CPU s", "in all", "memory", "parameters", "batch 1", "batch 8")
    title = "Half of the channels removed by L1 norm: CPU seconds, growth of peak memory, and latency original / small"
    shown = Table(*columns, title=title, title_justify="left", box=SIMPLE)
    for (network, peer), result in results.items():
        ratios = [f"{original / small:.2f}" for original, small in result["latency"].values()]
        growth = f"{result['memory_growth'] / 1e6:.0f} MB"
        seconds = (f"{result[key]:.3f}" for key in ("cpu_seconds", "cpu_seconds_in_all"))
        shown.add_row(network, peer, *seconds, growth, f"{result['parameters']:,}", *ratios)
    return shown


if __name__ == "__main__":
    typer.run(main)
