"""The architectures that people use, at full size: what leaves at 50 %, whether the rest computes the same, and how fast it is.

    make bench-architectures                       measures what has no result yet, and prints the table
    python benchmarks/architectures.py --only BERT-base --redo
    python benchmarks/architectures.py --show      the table of the results at hand

Each architecture runs in a process of its own: a crash is one row. Results are kept in benchmarks/results, so a run can be interrupted.
The same run writes docs/architectures.md and its picture. Torch-Pruning is compared where it is on the path (`make` installs it).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from page import write_page
from rows import shown

HERE = Path(__file__).parent
RESULTS = HERE / "results"
#: The longest that one architecture may take, in seconds.
LIMIT = 3600
#: What is measured in a process of its own, and a key of its result.
PARTS = {"proof": "difference", "speed": "latency"}

#: In the order of the table.
NAMES = {
    "torch": (
        *("ResNet-50", "MobileNetV2", "EfficientNet-B0", "ConvNeXt-T", "RegNetY-4GF", "ViT-B", "DeiT-B", "Swin-T"),
        *("BERT-base", "RoBERTa-base", "DistilBERT", "ALBERT-base", "ELECTRA-small", "GPT-2", "Llama (GQA)", "T5-small", "Whisper-tiny"),
    ),
    "keras": (
        *("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "InceptionV3", "Xception", "ConvNeXtTiny", "NASNetMobile"),
        *("BERT-base", "GPT-2", "ViT-B", "subclassed transformer"),
    ),
    "onnx": (
        "ResNet-50 of torch",
        "MobileNetV2 of torch",
        "BERT-base of torch",
        "ResNet50 of Keras",
        "MobileNetV2 of Keras",
        "BERT-base of Keras",
    ),
}


def main(
    only: Annotated[list[str], typer.Option(help="Only these, by name or framework.")] = [],  # noqa: B006
    part: Annotated[list[str], typer.Option(help='Only "proof" (sizes, exactness, the peer) or "speed".')] = list(PARTS),  # noqa: B006
    redo: Annotated[bool, typer.Option("--redo", help="Measure also what has a result.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prune each architecture by half, check it, time it, and compare."""
    asked = [(framework, name) for framework, names in NAMES.items() for name in names if not only or name in only or framework in only]
    if not asked:
        raise typer.BadParameter(f"no such architecture; there are {', '.join(name for names in NAMES.values() for name in names)}")
    missing = {} if show else {row: wanted for row in asked if (wanted := [each for each in part if redo or not _has(row, each)])}
    for row, wanted in track(missing.items(), "measuring", console=Console(stderr=True), disable=not missing):
        for each, found in measure(*row, wanted).items():
            _note(row, each, found)
        _write()
    results = _write()
    chosen = {row: result for row, result in results.items() if row in asked}
    if as_json:
        print(json.dumps([{"framework": f, "name": n, **result} for (f, n), result in chosen.items()], indent=1))
    else:
        console = Console()
        # What reads a pipe has no width; the rows need one.
        (console if console.is_terminal else Console(width=180)).print(shown(chosen))


def measure(framework: str, name: str, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for each part what architecture.py prints, or why it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / "architecture.py"), framework, name, *parts]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        printed, complaints = done.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        done.kill()
        printed, complaints = done.communicate()[0], f"took longer than {LIMIT} s"
    found: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    lines = [line for line in complaints.splitlines() if line.strip()]
    failed = {"error": lines[-1][:300] if lines else f"exit status {done.returncode}"}
    return {part: found[number] if number < len(found) else failed for number, part in enumerate(parts)}


def _write() -> dict[tuple[str, str], dict[str, Any]]:
    """Write the page, and return what is on it."""
    results = _results()
    missing = [f"{name} ({framework})" for framework, names in NAMES.items() for name in names if (framework, name) not in results]
    write_page(results, missing, HERE.parent / "docs")
    return results


def _results() -> dict[tuple[str, str], dict[str, Any]]:
    """Return what is known of each architecture, in the order of the table."""
    rows = [(framework, name) for framework, names in NAMES.items() for name in names]
    return {row: known for row in rows if (known := _known(row))}


def _known(row: tuple[str, str]) -> dict[str, Any]:
    path = _file(*row)
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return known


def _has(row: tuple[str, str], part: str) -> bool:
    return PARTS[part] in _known(row)


def _note(row: tuple[str, str], part: str, found: dict[str, Any]) -> None:
    """Add a part to what is known of an architecture; a failure stays until that part succeeds."""
    known = {key: value for key, value in _known(row).items() if key != f"error in {part}"}
    known |= {f"error in {part}": found["error"]} if "error" in found else found
    _file(*row).write_text(json.dumps(known, indent=1) + "\n")


def _file(framework: str, name: str) -> Path:
    return RESULTS / f"{framework}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


if __name__ == "__main__":
    typer.run(main)
