"""What a plan leaves of a model's parameters, and the sizes that Keras layers hold about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from nnc.adapter import Masks
from nnc.errors import SpeedupError
from nnc.graph.ir import Array, Shape
from nnc.graph.plan import Plan
from nnc_tensorflow.layers import KerasLayer
from nnc_tensorflow.layouts import is_a, linear_einsum
from nnc_tensorflow.recurrent import cell_sizes, is_cell, layer_sizes


@dataclass(frozen=True)
class Cut:
    """What one layer becomes: its parameters by Keras' attribute and in Keras' layout, and the attributes that change."""

    weights: dict[str, Array]
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def new_bias(self) -> bool:
        return bool(self.sizes.get("use_bias"))


def cuts(layers: Sequence[KerasLayer], plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> dict[str, Cut]:
    """Return what each layer with parameters becomes: masked, constants folded into its bias, cut.

    Raises `SpeedupError` where Keras cannot express the cut.
    """
    found = {layer.name: _cut(layer, plan, masks.get(layer.name, {}), folds) for layer in layers}
    for layer in layers:
        if layer.holder is not layer.layer:  # the cell of a recurrent layer holds the weights, the layer a size
            inner = found[layer.name]
            found[f"{layer.name}.cell"] = inner
            found[layer.name] = Cut({}, layer_sizes(inner.weights, len(layer.layer.state_size)))
    return found


def _cut(layer: KerasLayer, plan: Plan, masks: Mapping[str, Array], folds: Mapping[str, Array]) -> Cut:
    prefix = f"{layer.name}." if layer.name else ""
    shapes = {f"{prefix}{name}": shape for name, shape in layer.parameters.items()}
    if layer.name in plan.biases:
        shapes[f"{prefix}bias"] = (layer.parameters["weight"][0],)
    own = Plan(tuple(group for group in plan.groups if any(member.tensor in shapes for member in group.members)))
    kept = own.kept_indices(_all_shapes(own, shapes))
    weights = {slot.attribute: _slot(layer, name, masks, folds, kept.get(f"{prefix}{name}", {})) for name, slot in layer.slots.items()}
    if layer.name in plan.biases:
        addend = np.asarray(folds.get(f"{prefix}bias", np.zeros(shapes[f"{prefix}bias"])), layer.slots["weight"].variable.dtype)
        weights["bias"] = _taken(addend, kept.get(f"{prefix}bias") or _rows(kept.get(f"{prefix}weight", {})))
    return Cut(weights, _sizes(layer, weights, plan))


def _all_shapes(plan: Plan, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `shapes`, and large enough ones for the other layers' parameters in the same groups, whose cuts are not looked at here."""
    found = dict(shapes)
    for (tensor, axis), members in plan.axes().items():
        if tensor not in shapes:
            size = max(member.start + member.outer * member.size * member.inner for member in members)
            found[tensor] = {**found.get(tensor, {}), axis: size}
    return found


def _rows(kept: Mapping[int, Array]) -> dict[int, Array]:
    return {0: kept[0]} if 0 in kept else {}


def _slot(layer: KerasLayer, name: str, masks: Mapping[str, Array], folds: Mapping[str, Array], kept: Mapping[int, Array]) -> Array:
    """Return one parameter masked, folded and cut, in Keras' layout."""
    slot = layer.slots[name]
    stored = np.asarray(slot.variable.value)
    array = np.asarray(slot.layout.canonical(stored)) if slot.layout.plain else np.array(slot.layout.canonical(stored))
    if name in masks:
        array = array * masks[name].astype(array.dtype)
    path = f"{layer.name}.{name}" if layer.name else name
    if path in folds:
        array = array + np.asarray(folds[path], array.dtype)
    try:
        return slot.layout.native(_taken(array, kept), slot.layout.cut(tuple(slot.variable.shape), kept))
    except ValueError as error:
        left = ", ".join(f"{len(rows)} along axis {axis}" for axis, rows in kept.items())
        raise SpeedupError(f"{path}: {error}, but the plan leaves {left}.") from error


def _taken(array: Array, kept: Mapping[int, Array]) -> Array:
    for axis, rows in kept.items():
        array = np.take(array, rows, axis)
    return array


def _sizes(layer: KerasLayer, weights: Mapping[str, Array], plan: Plan) -> dict[str, Any]:
    """Return the attributes of a Keras layer that its new parameters fix; a layer of no known kind has none."""
    found = _held_sizes(layer.holder, weights)
    if is_a(layer.layer, ("GroupNormalization",)):
        found["groups"] = _groups(layer, plan)
    found |= {size.attribute: size.new for size in plan.sizes if size.layer == layer.name and _holds_groups(layer.layer, size.attribute)}
    if layer.name in plan.biases:
        found["use_bias"] = True
    return found


def _holds_groups(layer: keras.Layer, attribute: str) -> bool:
    """A depthwise layer has no `groups`: Keras takes them from its input."""
    return attribute in vars(layer) and not is_a(layer, ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"))


def _held_sizes(layer: keras.Layer, weights: Mapping[str, Array]) -> dict[str, Any]:
    kernel = weights.get("kernel")
    if is_a(layer, ("SeparableConv1D", "SeparableConv2D")):
        return {"filters": weights["pointwise_kernel"].shape[-1], "depth_multiplier": weights["depthwise_kernel"].shape[-1]}
    if is_a(layer, ("Embedding",)):
        return {"input_dim": weights["embeddings"].shape[0], "output_dim": weights["embeddings"].shape[1]}
    if kernel is None:
        return {}
    if is_cell(layer):
        return cell_sizes(layer, weights)
    if is_a(layer, ("DepthwiseConv1D", "DepthwiseConv2D")):
        return {"depth_multiplier": kernel.shape[-1]}
    if is_a(layer, ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")):
        return {"filters": kernel.shape[-2]}
    if is_a(layer, ("Conv1D", "Conv2D", "Conv3D")):
        return {"filters": kernel.shape[-1]}
    if is_a(layer, ("Dense",)):
        return {"units": kernel.shape[-1]}
    return _einsum_sizes(layer, kernel.shape)


def _groups(layer: KerasLayer, plan: Plan) -> int:
    """Return the number of groups of a GroupNormalization: of its channels, groups x width, either groups leave or a part of each."""
    path = f"{layer.name}.{next(iter(layer.slots))}" if layer.name else next(iter(layer.slots))
    groups = int(layer.layer.groups)
    for member in {(m.outer, m.size, m.inner): m for m in plan.axes().get((path, 0), ())}.values():
        if member.outer * member.size <= groups:
            groups = groups // member.size * (member.size - len(member.removed))
    return groups


def _einsum_sizes(layer: keras.Layer, kernel: Shape) -> dict[str, Any]:
    """Return the output shape that an EinsumDense holds, with the sizes of the axes that its kernel makes."""
    einsum = linear_einsum(layer)
    if einsum is None:
        return {}
    sizes = einsum.sizes(kernel)
    held = layer.partial_output_shape
    letters = einsum.made[-len(held) :]
    return {"partial_output_shape": tuple(sizes.get(letter, size) for letter, size in zip(letters, held, strict=True))}
