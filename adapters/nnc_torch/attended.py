"""torch's scaled_dot_product_attention without a scale: it takes one from the width of the queries, which therefore stays.

The fused kernels are read so anyway. Where torch takes the attention apart, as for five axes, only a number would be left of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from nnc.graph.ir import Node, Tensor
from nnc_torch import multihead
from nnc_torch.literals import within
from nnc_torch.record import Recorder


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of torch's function while `recorder` records."""

    def attend(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("scale") is None and not within(multihead):
            query = _whole(recorder, query)
        return functional.scaled_dot_product_attention(query, *args, **kwargs)

    return {functional.scaled_dot_product_attention: attend}


def _whole(recorder: Recorder, query: torch.Tensor) -> torch.Tensor:
    """Return the queries as a tensor whose last axis is pinned in the graph."""
    x, held = recorder.values.read(query), Tensor(tuple(query.shape))
    attrs = {"fixed": (query.dim() - 1,)}
    place = recorder.places.here()
    recorder.values.graph.nodes.append(Node("identity", (x,), (held,), attrs, "torch.scaled_dot_product_attention", *place))
    result = recorder.aside(torch.ops.aten.alias, query)
    recorder.values.bind(result, held)
    return result
