"""The table of architectures, as cells: one row for each, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

Results = Mapping[tuple[str, str], Mapping[str, Any]]

TITLES = {"torch": "PyTorch", "keras": "Keras 3", "onnx": "ONNX"}
COLUMNS = (
    *("architecture", "parameters", "removed", "MACs", "removed", "masked / small", "Torch-Pruning"),
    *("framework 1", "8", "ONNX Runtime 1", "8"),
)
#: Rounding explains this much, in float32.
EXACT = 1e-5


def shown(results: Results) -> Table:
    """Return the table for the terminal."""
    table = Table(*COLUMNS, title="Half of the channels, heads and neurons removed by L1 norm", title_justify="left", box=SIMPLE)
    framework = ""
    for (kind, name), result in results.items():
        if kind != framework:
            table.add_section()
            table.add_row(f"[bold]{TITLES[kind]}", *[""] * (len(COLUMNS) - 1))
            framework = kind
        table.add_row(*row(name, result))
    return table


def row(name: str, result: Mapping[str, Any]) -> list[str]:
    """Return the cells of one architecture."""
    if "difference" not in result:
        return [name, "fails", "", "", "", str(result.get("error in proof", "not measured")), *[""] * 5]
    sizes = [cell for key in ("parameters", "macs") for cell in (_change(*result[key]), f"{removed(result[key]):.1%}")]
    times = [speed_up(result, where, batch) for where in ("framework", "onnxruntime") for batch in ("1", "8")]
    return [name, *sizes, _proof(result["difference"]), peer(result), *times]


def removed(pair: list[int]) -> float:
    """Return the fraction that is gone."""
    return 1 - pair[1] / pair[0]


def _change(before: int, after: int) -> str:
    return f"{_short(before)} to {_short(after)}"


def _short(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _proof(difference: float) -> str:
    return f"{difference:.0e}" if difference <= EXACT else f"NOT EXACT {difference:.1e}"


def speed_up(result: Mapping[str, Any], where: str, batch: str) -> str:
    """Return original / small, or what stands in the way."""
    pair = result.get("latency", {}).get(where, {}).get(batch)
    if pair is None:
        return ""
    return f"{pair[0] / pair[1]:.2f}" if isinstance(pair, list) else "no export"


def peer(result: Mapping[str, Any]) -> str:
    """Say what Torch-Pruning does with the same task, as it comes and with the recipe for heads."""
    outcomes = result.get("peer")
    if not outcomes:
        return ""
    plain = _outcome(outcomes["plain"])
    return f"{plain}; recipe: {_outcome(outcomes['recipe'])}" if outcomes["recipe"] else plain


def _outcome(outcome: Mapping[str, Any]) -> str:
    if outcome["verdict"] == "differs":
        return f"wrong by {outcome['error']:.1g}"
    return f"exact, {outcome['removed']:.1%}" if outcome["verdict"] == "exact" else str(outcome["verdict"])


def at_least_the_peer(result: Mapping[str, Any]) -> bool | None:
    """Tell whether nnc removes at least what Torch-Pruning does where that is exact; None where it never is."""
    outcomes = [outcome for outcome in (result.get("peer") or {}).values() if outcome and outcome["verdict"] == "exact"]
    if not outcomes or "difference" not in result:
        return None
    # To a tenth of a per cent: both round half of an odd number, one up, one down.
    return removed(result["parameters"]) >= max(outcome["removed"] for outcome in outcomes) - 1e-3
