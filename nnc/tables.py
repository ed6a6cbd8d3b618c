"""How nnc's results look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table

from nnc.heads import removed_heads

if TYPE_CHECKING:
    from nnc.bench import Bench
    from nnc.demo import Result
    from nnc.export import ExportResult
    from nnc.prunability import Prunability, Removable
    from nnc.report import Report


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose first column names the row and whose others are numbers, aligned to the right."""
    result = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        result.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of words. In a narrow terminal names go on in the next line: whoever writes a config needs all of them."""
    result = Table()
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def demo_table(result: Result) -> RenderableType:
    """Return one column for each stage of the demo, and what was measured on what."""
    stages = result.stages
    rows = (
        ("parameters", *(f"{stage.cost.parameters:,}" for stage in stages)),
        ("file size", *(kibibytes(stage.file_size) for stage in stages)),
        ("MACs per image", *(f"{stage.cost.macs:,}" for stage in stages)),
        ("latency", *(milliseconds(stage.cost.seconds) for stage in stages)),
        ("accuracy", *(f"{stage.accuracy:.2%}" for stage in stages)),
    )
    shown = table(f"nnc demo on {result.framework}", ("", *(stage.name for stage in stages)), rows)
    return Group(shown, f"latency: {result.conditions}")


def report_table(report: Report) -> RenderableType:
    """Return the report's table, and under it the conditions, the difference, and what had to stay."""
    columns = ("", "before", "after", "after / before")
    return Group(table(None, columns, report_rows(report)), *report_notes(report))


def report_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return (name, before, after, ratio), each number with its unit."""
    before, after, latency = report.before, report.after, report.latency
    return [
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}", ratio(before.parameters, after.parameters)),
        ("size", f"{kibibytes(before.bytes)}", f"{kibibytes(after.bytes)}", ratio(before.bytes, after.bytes)),
        ("MACs per sample", f"{before.macs:,}", f"{after.macs:,}", ratio(before.macs, after.macs)),
        ("latency", milliseconds(latency.before), milliseconds(latency.after), ratio(latency.before, latency.after)),
    ]


def report_notes(report: Report) -> list[str]:
    """Return what a reader must know besides the numbers."""
    notes = [f"latency: {report.latency.conditions}"]
    inexact = report.plan.inexact if report.plan else ()
    if report.difference is not None and inexact:
        reasons = "; ".join(map(str, inexact))
        notes.append(f"inexact, as was asked: outputs moved by {report.difference:.1e} of the largest output: {reasons}")
    elif report.difference is not None:
        notes.append(f"difference between masked and small model: {report.difference:.1e} of the largest output")
    if report.plan:
        notes += removed_heads(report.plan)
        notes += [f"kept: {kept.count} of {kept.where}: {kept.reason}" for kept in report.plan.kept]
        notes += [f"note: {note}" for note in report.plan.notes]
        notes += [f"rewritten: {reshape.function}: {reshape.old} -> {reshape.new}" for reshape in report.plan.reshapes if reshape.rewrite]
    return notes


def prunability_table(found: Prunability) -> RenderableType:
    """Return the groups, what must stay, and the fractions under them."""
    groups = listing(("can leave together", "granules", "weights each"), [_group_row(group) for group in found.groups])
    stays = listing(("must stay", "channels", "why"), [(pinned.layer, str(pinned.channels), pinned.reason) for pinned in found.pinned])
    most = (
        f"at most {found.removable_parameters:.2%} of {found.parameters:,} parameters and {found.removable_macs:.2%} of the MACs can leave"
    )
    return Group(groups, *([stays] if found.pinned else []), most)


def _group_row(group: Removable) -> tuple[str, str, str]:
    return ", ".join(group.layers), str(group.granules), f"{group.parameters:,}"


def export_table(result: ExportResult) -> RenderableType:
    """Return what a file is, its layers by kernel, and what a reader must know."""
    opset = "" if result.opset is None else f", opset {result.opset}"
    lines = [f"{result.path}: {result.format}{opset}, {kibibytes(result.bytes)}"]
    if result.float_bytes:
        lines[0] += f", {ratio(result.float_bytes, result.bytes)} of the float file"
    lines.append(f"difference from {result.compared_with}: {result.difference:.1e} of the largest output")
    if result.latency is not None:
        faster = result.latency.before / result.latency.after
        times = f"{milliseconds(result.latency.before)} -> {milliseconds(result.latency.after)}"
        lines.append(f"latency: {times}, {faster:.2f} times as fast; {result.latency.conditions}")
    rows = [(one.layer, one.kernel, one.reason) for one in result.placed]
    shown = [listing(("layer", "kernel", "why not an integer one"), rows)] if rows else []
    return Group(*lines, *shown, *(f"note: {note}" for note in result.notes))


def bench_table(result: Bench) -> RenderableType:
    """Return one row for each model, set against the first."""
    first = result.models[0]
    rows = [
        (
            one.name,
            milliseconds(one.seconds),
            f"{first.seconds / one.seconds:.2f}x",
            kibibytes(one.size),
            ratio(first.size, one.size),
            f"{one.memory / 2**20:,.0f} MiB" if one.memory is not None else "-",
            f"{one.accuracy:.2%}" if one.accuracy is not None else "-",
        )
        for one in result.models
    ]
    columns = ("model", "latency", "speed", "size", "ratio", "memory", "right")
    return Group(table(None, columns, rows), f"latency: {result.conditions}", "memory: the peak of a process that loads and runs the model")


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """Return what rich would print, without colours."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable, highlight=False, markup=False)
    return capture.get().rstrip()


def ratio(before: float, after: float) -> str:
    """Return `after / before` to two digits."""
    return f"{after / before:.2f}" if before else "-"


def milliseconds(seconds: float) -> str:
    """Return a time in ms."""
    return f"{1000 * seconds:.2f} ms"


def kibibytes(size: int) -> str:
    """Return a size in KiB."""
    return f"{size / 1024:,.0f} KiB"
