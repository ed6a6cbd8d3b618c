"""What compression gave: parameters, bytes, MACs and measured latency of a model before and after, side by side.

report = nnc.report(model, small, example_inputs)
print(report)                      a table for the terminal
report.to_dict()                   plain data for JSON
report.to_html("report.html")      one self-contained page with pictures
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from typing import TYPE_CHECKING, Any

from nnc.adapter import Adapter
from nnc.columns import channels
from nnc.graph.ir import Graph
from nnc.graph.macs import macs
from nnc.graph.plan import Plan
from nnc.latency import Latency, hardware, medians_by_turns, turns_within
from nnc.registry import adapter_for

if TYPE_CHECKING:
    from rich.console import RenderableType

#: What a layer computes while training but nobody counts as a parameter.
BUFFERS = {"running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True)
class Footprint:
    """How large a model is. `macs` are multiply-accumulates of one sample, `bytes` what its stored numbers take.

    `channels` are the output channels of each layer with a kernel, in the model's order.
    """

    parameters: int
    bytes: int
    macs: int
    channels: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """Two models side by side.

    `plan` says what left and what had to stay; `difference` is the largest absolute difference between the outputs of the masked
    and the small model on the example inputs, relative to the largest output. Both are None where no ModelSpeedup was asked.
    """

    before: Footprint
    after: Footprint
    latency: Latency
    plan: Plan | None = None
    difference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, ready for JSON; latencies in seconds."""
        return {
            "parameters": [self.before.parameters, self.after.parameters],
            "bytes": [self.before.bytes, self.after.bytes],
            "macs": [self.before.macs, self.after.macs],
            "latency": [self.latency.before, self.latency.after],
            "latency_conditions": self.latency.conditions,
            "channels": {name: [count, self.after.channels.get(name)] for name, count in self.before.channels.items()},
            "difference": self.difference,
            "plan": self.plan.to_dict() if self.plan else None,
        }

    def to_json(self) -> str:
        """Return `to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write one self-contained page: the table, a picture of it, and the channels of each layer."""
        from nnc.page import write_page

        write_page(self, path)

    def __rich__(self) -> RenderableType:
        from nnc.tables import report_table

        return report_table(self)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


def report(
    before: Any,
    after: Any,
    example_inputs: Any,
    *,
    repeats: int | None = None,
    plan: Plan | None = None,
    difference: float | None = None,
) -> Report:
    """Measure both models on `example_inputs`; the latency by turns, as the median of `repeats`.

    None stands for 30 repeats, and for fewer, but 5, where a pass takes so long that these would need more than 20 seconds.

    Raises `ModelError` for an object that is no framework's model, `TraceError` where a model fails on the inputs.
    """
    first, second = adapter_for(before), adapter_for(after)
    graphs = [adapter.trace(example_inputs, adapter.masks()).graph for adapter in (first, second)]
    calls = [lambda: first.run(example_inputs), lambda: second.run(example_inputs)]
    repeats = repeats or turns_within(20.0, calls)
    slow, fast = medians_by_turns(calls, repeats, warm_up=2)
    latency = Latency(slow, fast, batch_size(graphs[0]), repeats, hardware())
    return Report(footprint(first, graphs[0]), footprint(second, graphs[1]), latency, plan, difference)


def footprint(adapter: Adapter, graph: Graph) -> Footprint:
    """Return how large the adapter's model is, given the graph of one of its forward passes."""
    widths = {layer.name: channels(layer) for layer in adapter.layers() if layer.prunable}
    stored = sum(array.nbytes for array in adapter.tensors().values())
    return Footprint(count_parameters(adapter), stored, macs(graph) // batch_size(graph), widths)


def count_parameters(adapter: Adapter) -> int:
    """Return how many numbers the model has learnt; running statistics are not counted."""
    stored = adapter.tensors()
    return sum(prod(array.shape) for path, array in stored.items() if path.rpartition(".")[2] not in BUFFERS)


def batch_size(graph: Graph) -> int:
    """Return the number of samples in the pass that `graph` recorded: the first size of its first input."""
    shape = graph.inputs[0].shape
    return shape[0] if shape else 1
