"""What a copied layer must hold to fit its new weights: sizes, a new bias, the input shapes that it accepts and was built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.src.ops.numpy import Take  # no public name leads to it

from nnc.graph.ir import Array, Shape
from nnc.graph.plan import Plan, Reshape
from nnc_tensorflow.attention import follow_projections, is_attention
from nnc_tensorflow.layouts import is_a, linear_einsum
from nnc_tensorflow.names import is_get_item, is_ops_reshape, is_ops_split, is_ops_take, split_points
from nnc_tensorflow.recurrent import cell_of, holder, is_cell
from nnc_tensorflow.surgery import Cut


def follow_weights(old: keras.Layer, layer: keras.Layer, cut: Cut | None, plan: Plan, name: str) -> None:
    """Bring one copied layer in step with its cut weights. The input's width follows from the kernel."""
    follow_plan(layer, plan, name)
    held = {size.attribute: size for size in plan.sizes if size.layer == name and size.attribute in layer.__dict__}
    layer.__dict__.update({attribute: size.in_place_of(layer.__dict__[attribute]) for attribute, size in held.items()})
    if is_attention(layer):
        follow_projections(layer)
    if cut is None:
        return
    if cut.new_bias and "bias" not in own(old):
        _give_bias(layer, cut.weights["bias"])
    for attribute, value in cut.sizes.items():
        layer.__dict__[attribute] = value
    _follow_input(layer, cut)


def follow_plan(operation: keras.Operation, plan: Plan, name: str) -> None:
    """Give a reshape, or a split, that is a layer or an operation of a Functional model its new sizes."""
    for reshape in (reshape for reshape in plan.reshapes if reshape.layer == name):
        if isinstance(operation, keras.layers.Reshape):
            operation.target_shape = tuple(reshape.new[1:])
        elif is_ops_reshape(operation):
            operation.newshape = tuple(reshape.new)
            operation._auto_config.config["newshape"] = tuple(reshape.new)  # what Keras saves of the operation
        elif is_ops_split(operation):
            operation.indices_or_sections = split_points(operation, reshape.new)
            operation._auto_config.config["indices_or_sections"] = operation.indices_or_sections
        elif is_get_item(operation):
            arguments = operation._inbound_nodes[0].arguments
            tensor, key = arguments.args
            if abs(reshape.old[2]) != 1:
                _take(operation, reshape.cut[0])
                arguments.args = (tensor, list(reshape.new))
            else:
                arguments.args = (tensor, _recut(tuple(key) if isinstance(key, (tuple, list)) else (key,), reshape))
        elif is_ops_take(operation):
            arguments = operation._inbound_nodes[0].arguments
            arguments.args = (arguments.args[0], list(reshape.new))


def _take(operation: keras.Operation, axis: int) -> None:
    """Make `keras.ops.take` of a key in steps: what these took lies unevenly now, which no key can say."""
    made = Take(axis=axis, name=operation.name)
    operation.__class__ = Take
    operation.__dict__.update(axis=axis, _auto_config=made._auto_config)  # the latter is what Keras saves of it


def _recut(key: tuple[Any, ...], reshape: Reshape) -> tuple[Any, ...]:
    """Return the key of `x[key]` with other bounds."""
    (axis, rank), (start, stop, *_) = reshape.cut, reshape.new
    for place, part in enumerate(key):
        before, after = key[:place], key[place + 1 :]
        behind_dots = any(each is Ellipsis for each in before)
        number = rank - 1 - sum(each is not None for each in after) if behind_dots else sum(isinstance(each, slice) for each in before)
        if isinstance(part, slice) and number == axis:
            new = slice(start if part.start is not None else None, stop if part.stop is not None else None, part.step)
            return (*before, new, *after)
    return key


def own(layer: keras.Layer) -> Mapping[str, Any]:
    return {variable.name: variable for variable in (*layer._trainable_variables, *layer._non_trainable_variables)}


def _give_bias(layer: keras.Layer, numbers: Array) -> None:
    layer._tracker.unlock()
    try:
        layer.bias = layer.add_weight(name="bias", shape=numbers.shape, initializer="zeros")
        layer.bias.assign(numbers)
    finally:
        layer._tracker.lock()


def _follow_input(layer: keras.Layer, cut: Cut) -> None:
    """Set the size of the channel axis in the layer's input spec and build shapes, for the kinds of layers that check it."""
    if is_cell(layer) or cell_of(layer) is not None:
        _follow_sequences(layer)
    if linear_einsum(layer):
        _follow_einsum_input(layer, cut.weights["kernel"].shape)
    width = _input_width(layer, cut)
    if width is None:
        return
    axis = _channel_axis(layer)
    spec = layer.input_spec
    if getattr(spec, "axes", None):
        checked = axis if axis in spec.axes else next(iter(spec.axes))
        layer.input_spec = keras.InputSpec(min_ndim=spec.min_ndim, ndim=spec.ndim, axes={checked: width})
    shapes = layer.__dict__.get("_build_shapes_dict")
    if shapes:
        layer.__dict__["_build_shapes_dict"] = {key: _resized(shape, axis, width) for key, shape in shapes.items()}


def _follow_sequences(layer: keras.Layer) -> None:
    """Note the width that a recurrent layer reads in the shapes that it was built for; those of states are other shapes."""
    width, shapes = int(holder(layer).kernel.shape[0]), layer.__dict__.get("_build_shapes_dict")
    if shapes:
        layer.__dict__["_build_shapes_dict"] = {
            key: shape if "state" in key else _resized(shape, -1, width) for key, shape in shapes.items()
        }


def _follow_einsum_input(layer: keras.Layer, kernel: Shape) -> None:
    """Note the new sizes of the axes that the kernel sums over; they come last in the input."""
    einsum = linear_einsum(layer)
    shapes = layer.__dict__.get("_build_shapes_dict")
    if einsum is not None and shapes:
        summed = tuple(einsum.sizes(kernel)[letter] for letter in einsum.summed)
        layer.__dict__["_build_shapes_dict"] = {key: (*shape[: -len(summed)], *summed) for key, shape in shapes.items()}


def _resized(shape: Shape, axis: int, width: int) -> Shape:
    if not isinstance(shape, (tuple, list)) or any(isinstance(size, (tuple, list)) for size in shape):
        return shape
    sizes = list(shape)
    sizes[axis] = width
    return tuple(sizes)


def _channel_axis(layer: keras.Layer) -> int:
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.GroupNormalization)):
        return int(layer.axis)
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _input_width(layer: keras.Layer, cut: Cut) -> int | None:
    weights = cut.weights
    if isinstance(layer, keras.layers.BatchNormalization):
        return len(weights["moving_mean"])
    if is_a(layer, ("SeparableConv1D", "SeparableConv2D")):
        return int(weights["depthwise_kernel"].shape[-2])
    if isinstance(layer, keras.layers.GroupNormalization):
        return next((len(vector) for vector in weights.values()), None)
    if "kernel" not in weights:
        return None
    kernel = weights["kernel"].shape
    if is_a(layer, ("Dense",)):
        return int(kernel[0])
    if is_a(layer, ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")):
        return int(kernel[-1])
    if is_a(layer, ("Conv1D", "Conv2D", "Conv3D")):
        return int(kernel[-2]) * int(layer.groups)
    return int(kernel[-2]) if is_a(layer, ("DepthwiseConv1D", "DepthwiseConv2D")) else None
