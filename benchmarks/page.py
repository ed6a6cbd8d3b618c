"""docs/architectures.md and its picture, from the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import COLUMNS, EXACT, TITLES, Results, at_least_the_peer, removed, row, speed_up

HEAD = """# Architectures

<!-- Written by benchmarks/architectures.py; edit that instead. -->

Real architectures at full size, random weights, pruned with one config_list and no recipe:

    L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=...)        and        nnc.ModelSpeedup(model, example_inputs, masks)

Half of the channels, attention heads and feed-forward neurons leave, by L1 norm over groups; the width under a LayerNorm stays.
"""

LEGEND = """
- *masked / small*: the largest difference between the outputs of the masked and of the small model, relative to the largest output, in
  float32, on inputs that the pruner did not see. Rounding explains up to 1e-5.
- *Torch-Pruning*: what Torch-Pruning 1.6.1 does with the same task: the fraction of parameters that it removes where its small network
  computes what the masked one does, or how far that is off. "recipe" is a second run, where the first was wrong: there it is told which
  layers are projections of an attention and how many heads they have, and the numbers of heads that layers note are patched afterwards.
  In both it leaves the width under a LayerNorm alone.
- the last four columns: CPU seconds of the original / of the small network, in the framework and in ONNX Runtime, at batch 1 and 8. Medians
  by turns, float32, one thread. Images have 224 x 224 pixels (InceptionV3 and Xception: 299 x 299), texts 128 tokens. The machine was
  shared with other work; that is why the seconds are those of the process, not of the clock on the wall.
"""


def write_page(results: Results, missing: Sequence[str], folder: Path) -> None:
    """Write the page and the picture into a folder; `missing` are architectures that have not been measured."""
    parts = [HEAD]
    if results:
        _picture(results, folder / "architectures.svg")
        parts.append("![Fraction of parameters removed, and speed-up](architectures.svg)\n")
    for framework, title in TITLES.items():
        rows = [row(name, result) for (kind, name), result in results.items() if kind == framework]
        if rows:
            parts += [f"## {title}\n", _markdown(rows, framework), *_obstacles(results, framework)]
    parts += ["## What the columns say", LEGEND, "## What holds\n", _summary(results, missing), "\n## Conditions\n", _conditions(results)]
    (folder / "architectures.md").write_text("\n".join(parts), encoding="utf-8")


def _markdown(rows: list[list[str]], framework: str) -> str:
    used = [number for number in range(len(COLUMNS)) if any(cells[number] for cells in rows)]
    lines = ["| " + " | ".join(COLUMNS[number] for number in used) + " |", "|---" * len(used) + "|"]
    lines += ["| " + " | ".join(cells[number] for number in used) + " |" for cells in rows]
    return "\n".join(lines) + "\n"


def _obstacles(results: Results, framework: str) -> list[str]:
    """Say below a table why a part of a row is missing."""
    lines = []
    for (kind, name), result in results.items():
        reasons = {key.removeprefix("error in "): text for key, text in result.items() if key.startswith("error in ")}
        for where, by_batch in result.get("latency", {}).items():
            reasons |= {f"{where}, batch {batch}": text for batch, text in by_batch.items() if isinstance(text, str)}
        if kind == framework:
            lines += [f"- {name}, {place}: {reason}" for place, reason in reasons.items()]
    return ["\n".join(lines) + "\n"] if lines else []


def _summary(results: Results, missing: Sequence[str]) -> str:
    """Say in numbers what the table shows: exact, none a no-op, at least the peer."""
    good = {row: result for row, result in results.items() if "difference" in result}
    exact = sum(result["difference"] <= EXACT for result in good.values())
    smaller = sum(removed(result["parameters"]) > 0 for result in good.values())
    compared = [(name, at_least_the_peer(result)) for (_, name), result in good.items() if at_least_the_peer(result) is not None]
    short = [name for name, enough in compared if not enough]
    lines = [
        f"- {exact} of {len(results)} architectures are exact; {smaller} became smaller.",
        f"- Torch-Pruning is exact on {len(compared)} of {sum(bool(result.get('peer')) for result in good.values())}; "
        f"nnc removes at least as much on {len(compared) - len(short)} of these{': less on ' + ', '.join(short) if short else ''}.",
    ]
    lines += [f"- Not measured yet: {', '.join(missing)}."] if missing else []
    untimed = [f"{name} ({kind})" for (kind, name), result in results.items() if "latency" not in result]
    lines += [f"- Exact, but not timed yet: {', '.join(untimed)}."] if untimed else []
    return "\n".join(lines) + "\n"


def _conditions(results: Results) -> str:
    good = [result for result in results.values() if "difference" in result]
    hardware = sorted({result["hardware"] for result in good})
    versions: dict[str, Any] = {}
    for result in good:
        versions |= result["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    return f"{'; '.join(hardware)}. {packages}.\n\nThe command: `make bench-architectures`.\n"


def _picture(results: Results, path: Path) -> None:
    """Draw the fraction of parameters that leave, and beside it how much faster the small model is at batch 8."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "nnc"  # the same results give the same file
    rows = [(f"{name} ({TITLES[kind]})", result) for (kind, name), result in results.items() if "difference" in result][::-1]
    figure = Figure(figsize=(10, 0.8 + 0.26 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name for name, _ in rows]
    left.barh(names, [100 * removed(result["parameters"]) for _, result in rows], color="#4c78a8", label="parameters")
    left.barh(names, [100 * removed(result["macs"]) for _, result in rows], color="#f58518", height=0.25, label="MACs")
    left.set_xlabel("removed, %")
    left.legend(loc="lower right", fontsize=7)
    for where, colour, height in (("framework", "#4c78a8", 0.8), ("onnxruntime", "#f58518", 0.25)):
        cells = [speed_up(result, where, "8") for _, result in rows]
        right.barh(names, [float(cell) if cell[:1].isdigit() else 0 for cell in cells], color=colour, height=height, label=where)
    right.axvline(1, color="grey", linewidth=0.8)
    right.set_xlabel("original / small CPU time, batch 8")
    right.legend(["as it was", "framework", "ONNX Runtime"], loc="lower right", fontsize=7)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
    figure.savefig(path, metadata={"Date": None})
