"""A real BERT on SST-2 in int8: how right each file is, and how large, beside float; pruned, distilled and quantised at once, too.

    NNC_DATA=... OMP_NUM_THREADS=1 python benchmarks/quantized_bert.py --framework torch
    NNC_DATA=... OMP_NUM_THREADS=1 python benchmarks/quantized_bert.py --framework keras --start runs/fine-tune --folder runs/int8

Runs examples/quantize_bert.py with --chain, goes on with the run in the folder, and writes results/quantized_bert_FRAMEWORK.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from nnc.latency import hardware

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import quantize_bert  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--start", type=Path, help="folder of a fine-tuned model; by default it is fine-tuned here")
    parser.add_argument("--folder", type=Path, help="where the run is kept; default out/quantize_bert_FRAMEWORK")
    given = parser.parse_args()
    folder = given.folder or ROOT / "out" / f"quantize_bert_{given.framework}"
    usual = quantize_bert.arguments(["--framework", given.framework, "--chain", "--folder", str(folder)])
    usual.start = given.start
    rows = quantize_bert.measure(usual)
    result = {
        "command": f"python benchmarks/quantized_bert.py --framework {given.framework}",
        "hardware": hardware(),
        "conditions": f"{usual.steps} steps of {usual.batch} sentences on the grid; the pruned rows as examples/quantize_bert_*.yaml say",
        "rows": [asdict(row) for row in rows.found],
    }
    results = Path(__file__).parent / "results" / f"quantized_bert_{given.framework}.json"
    results.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Console(width=120).print(rows.table(f"SST-2, {given.framework}, {hardware()}"))


if __name__ == "__main__":
    main()
