"""Trace a model: one forward pass in inference mode, recorded into a Graph, and another one, on masked parameters, for its outputs.

Most numbers of the first pass are not computed, since nothing in the graph follows from them. Where the model's own code looks at such a
number, to choose an expert for instance, the pass is recorded again with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc.adapter import Masks, Trace
from nnc.errors import NncError, TraceError
from nnc.graph.ir import Graph, Node, Tensor
from nnc_torch import attended, contracted, linear, looking, packed, pixels, recorded, recurrent
from nnc_torch.caches import afresh
from nnc_torch.copies import memory
from nnc_torch.hollow import LEFT_OUT, Hollow
from nnc_torch.inference import arguments, inference, tensors_in, to_numpy
from nnc_torch.layers import canonical_shape, join, layers_of, numbers_of, public, swap_groups, swapped
from nnc_torch.literals import Literals
from nnc_torch.looking import depends
from nnc_torch.masks import native_masks, unmasked
from nnc_torch.places import Places, failed_at
from nnc_torch.readers import READERS
from nnc_torch.record import Recorder
from nnc_torch.seen import Seen
from nnc_torch.values import Slot, Values

#: What records torch's functions otherwise than by the operations of which they consist.
_HANDLING = (attended, contracted, linear, looking, packed, pixels, recurrent)


def trace(model: nn.Module, example_inputs: Any, masks: Masks) -> Trace:
    """Return the graph of one forward pass, and its outputs once these are asked for; the model is as before after each."""
    return Trace(_graph(model, example_inputs, masks), partial(afresh, model, partial(_outputs, model, example_inputs, masks)))


def _graph(model: nn.Module, example_inputs: Any, masks: Masks) -> Graph:
    with unmasked(model):
        state = recorded.state_of(model, example_inputs)
    known = recorded.recalled(model, example_inputs, state)
    if known is not None:
        return known
    try:
        graph, recorder = afresh(model, lambda: _recorded(model, example_inputs, {}, Hollow()))
        if not recorder.spoiled and not depends(graph, recorder.looked, LEFT_OUT):
            if not recorder.looked:
                recorded.keep(model, example_inputs, state, graph)
            return graph
    except TraceError:
        pass  # zeros in the place of numbers may be what failed
    return afresh(model, lambda: _recorded(model, example_inputs, masks))[0]


def _recorded(model: nn.Module, example_inputs: Any, masks: Masks, hollow: Hollow | None = None) -> tuple[Graph, Recorder]:
    """Return the graph of one forward pass, and what recorded it."""
    args, kwargs = arguments(model, example_inputs)
    graph = Graph(numbers=numbers_of(model))
    values = Values(graph)
    with unmasked(model), inference(model), _composed_attention(), _same_draws():
        _note_parameters(model, values)
        for tensor in tensors_in((args, kwargs)):
            graph.inputs.append(_note_input(tensor, values))
        seen = Seen(native_masks(model, masks))
        recorder = Recorder(values, Places(model, _call.__code__), Literals(), READERS, seen, hollow)
        recorder.literals.handlers = {name: run for each in _HANDLING for name, run in each.handlers(recorder).items()}
        with _located(model, graph), seen if masks else nullcontext(), recorder.literals, recorder:
            outputs = list(tensors_in(_call(model, args, kwargs)))
        graph.epsilon = _epsilon([*model.parameters(), *outputs])
        graph.outputs = [values.read(tensor) for tensor in outputs]
        graph.lasting = [*recorder.looked, *values.written_outside()]
    return graph, recorder


def _outputs(model: nn.Module, example_inputs: Any, masks: Masks) -> tuple[np.ndarray, ...]:
    """Return the outputs of one forward pass on masked parameters."""
    args, kwargs = arguments(model, example_inputs)
    with unmasked(model), inference(model), _composed_attention(), _same_draws():
        seen = Seen(native_masks(model, masks)) if masks else nullcontext()
        with _located(model, Graph()), seen:
            return tuple(to_numpy(tensor) for tensor in tensors_in(_call(model, args, kwargs)))


def _call(model: nn.Module, args: Any, kwargs: Any) -> Any:
    return model(*args, **kwargs)


@contextmanager
def _located(model: nn.Module, graph: Graph) -> Iterator[None]:
    """Say of what fails where in the model it does."""
    try:
        yield
    except NncError:
        raise
    except Exception as error:
        where, source = failed_at(model, error)
        message = f"{where}: the model failed on the example inputs: {type(error).__name__}: {error}"
        raise TraceError(message, graph, source) from error


@contextmanager
def _same_draws() -> Iterator[None]:
    """Let a model that draws numbers, as one that samples patches, draw the same in each pass, and its user what would have come."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextmanager
def _composed_attention() -> Iterator[None]:
    """Keep nn.TransformerEncoderLayer from its fused kernel, which does everything in one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _note_parameters(model: nn.Module, values: Values) -> None:
    """Tell `values` of every parameter and buffer; those that are tied are one graph tensor, under their first name."""
    first: dict[tuple[Any, ...], Slot] = {}
    for layer, module in layers_of(model):
        for name, stored in (*module._parameters.items(), *module._buffers.items()):
            if stored is None:
                continue
            key = memory(stored)
            if key not in first:
                first[key] = _parameter(values, module, join(layer, public(module, name)), name, stored)
            values.outside(stored, first[key])


def _parameter(values: Values, module: nn.Module, path: str, name: str, stored: torch.Tensor) -> Slot:
    shape = canonical_shape(module, name, stored)
    floating = stored.is_floating_point()
    groups = swap_groups(module, name)
    data = partial(_numbers, groups, stored.detach())
    tensor = Tensor(shape, "parameter" if floating else "constant", path, floating, stored.requires_grad, data, _biasable(module, name))
    if not groups:
        return Slot(values, tensor, weight=tensor if stored.dim() == 2 and floating else None)
    return Slot(values, None, partial(_native, values, tensor, tuple(stored.shape), groups), tensor, swapped=True)


def _biasable(module: nn.Module, name: str) -> bool:
    """Say whether a parameter is the weight of a module that has a place for a bias: its forward adds what stands there."""
    return public(module, name) == "weight" and "bias" in module._parameters


def _epsilon(tensors: Iterable[torch.Tensor]) -> float:
    """Return the relative precision of the coarsest floats among tensors."""
    kinds = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point}
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)


def _numbers(groups: int, stored: torch.Tensor) -> np.ndarray:
    return to_numpy(swapped(stored, groups) if groups else stored)


def _native(values: Values, tensor: Tensor, shape: tuple[int, ...], groups: int) -> Tensor:
    """Add the node that gives a parameter in the layout in which torch stores it, for a reader that knows no better."""
    order = (1, 0, *range(2, len(shape)))
    result = Tensor(shape)
    node = Node("transpose", (tensor,), (result,), {"permutation": order}) if groups == 1 else Node("unknown", (tensor,), (result,))
    values.graph.nodes.append(node)
    return result


def _note_input(tensor: torch.Tensor, values: Values) -> Tensor:
    value = Tensor(tuple(tensor.shape), "input", floating=tensor.is_floating_point())
    values.outside(tensor, Slot(values, value))
    return value
