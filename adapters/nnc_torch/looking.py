"""Notice code that looks at numbers that were not computed: a router of experts, say, runs others where all numbers are zero.

torch tags the operations whose result is a Python number or has a shape that depends on numbers; the other ways to look are methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from nnc.graph.ir import Graph, Tensor
from nnc_torch.inference import tensors_in

if TYPE_CHECKING:
    from nnc_torch.record import Call, Recorder

_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_METHODS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)
#: By what the numbers of others are chosen: these are looked at, not the others.
_CHOOSING = ("indices", "mask")


def looks(func: Any) -> bool:
    """Tell whether an ATen operation may look at numbers."""
    return not _TAGS.isdisjoint(func.tags)


def looked_at(call: Call) -> list[Tensor]:
    """Return what such an operation looks at."""
    chosen = next((call[name] for name in _CHOOSING if name in call), None)
    if chosen is None:
        return [call.values.read(tensor) for tensor in call.tensors]
    # Whole numbers are taken as they are; how many booleans are true decides a shape.
    return [call.values.read(tensor) for tensor in tensors_in(chosen) if tensor.dtype in (torch.bool, torch.uint8)]


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of the methods that hand out numbers."""
    return {method: partial(_noted, recorder, method) for method in _METHODS}


def _noted(recorder: Recorder, method: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    recorder.looked.append(recorder.values.read(tensor))
    return method(tensor, *args, **kwargs)


def depends(graph: Graph, looked: Collection[Tensor], left_out: Collection[str]) -> bool:
    """Tell whether anything that was looked at follows from operations, by name, that were left out."""
    if not looked:
        return False
    hollow: set[Tensor] = set()
    for node in graph.nodes:
        if node.op in left_out or not hollow.isdisjoint(node.inputs):
            hollow.update(node.outputs)
    return not hollow.isdisjoint(looked)
