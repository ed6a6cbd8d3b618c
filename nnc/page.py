"""The report as one self-contained HTML page: jinja2 for the text, matplotlib for the pictures."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from os import PathLike
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from nnc.report import Report
from nnc.tables import report_notes, report_rows


def write_page(report: Report, path: str | PathLike[str]) -> None:
    """Write the page to `path`; nothing in it refers to another file or to the network."""
    environment = Environment(loader=PackageLoader("nnc"), autoescape=select_autoescape(["html"]))
    page = environment.get_template("report.html").render(
        rows=report_rows(report),
        notes=report_notes(report),
        plan=str(report.plan) if report.plan else "",
        ratios=_picture(ratios_figure(report)),
        channels=_picture(channels_figure(report)),
    )
    Path(path).write_text(page, encoding="utf-8")


def ratios_figure(report: Report) -> Figure:
    """Draw what is left of parameters, bytes, MACs and latency, as a share of before."""
    before, after, latency = report.before, report.after, report.latency
    shares = {
        "parameters": after.parameters / before.parameters,
        "bytes": after.bytes / before.bytes,
        "MACs": after.macs / max(before.macs, 1),
        "latency": latency.after / latency.before,
    }
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.add_subplot(xlim=(0, max(1.0, *shares.values())), xlabel="after / before")
    bars = axes.barh(list(shares), list(shares.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    return figure


def channels_figure(report: Report) -> Figure:
    """Draw the output channels of each layer, before and after."""
    names = list(report.before.channels)
    rows = range(len(names))
    figure = Figure(figsize=(7, 1 + 0.25 * len(names)), layout="constrained")
    axes = figure.add_subplot(xlabel="output channels", yticks=list(rows), yticklabels=names)
    axes.barh(rows, list(report.before.channels.values()), color="lightgray", label="before")
    axes.barh(rows, [report.after.channels.get(name, 0) for name in names], label="after")
    axes.invert_yaxis()
    axes.legend()
    return figure


def _picture(figure: Figure) -> str:
    """Return the figure as an SVG in a data URL."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + b64encode(buffer.getvalue()).decode()
