"""What exporters take apart is put together again, so that ONNX Runtime finds its kernels, float and integer alike.

    constants         what is computed from them alone
    identities        casts and copies that change nothing           Reshape MatMul Reshape   -> MatMul
    LayerNorm         GlobalAveragePool, Sub, Mul, ... of tf2onnx    -> LayerNormalization
    GELU              Mul, Erf or Tanh, Add, ...                     -> Gelu of ONNX Runtime
    a bias            MatMul Reshape Add                             -> MatMul Add Reshape
    a line as an image of one row    Squeeze Relu Unsqueeze          -> Relu
    a mean over the image                                            -> GlobalAveragePool
    Conv BatchNorm, or a product and a sum with constants            -> Conv

Each is exact but for rounding, and matched whole: what looks different is left as it is.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper

from nnc.graph.ir import Array
from nnc_onnx.constants import fold_constants
from nnc_onnx.draft import Draft
from nnc_onnx.protos import attributes

#: ONNX Runtime's own operations.
CONTRIB = "com.microsoft"


def tidy(draft: Draft) -> None:
    """Put together what every kernel, float or integer, profits from."""
    fold_constants(draft)
    _identities(draft)
    _turned_weights(draft)
    _rows(draft)
    _means(draft)
    _tensordots(draft)
    _biases(draft)
    _layer_norms(draft)
    _gelus(draft)


def fold(draft: Draft) -> None:
    """Fold BatchNorm, and products and sums with constants, into the convolution in front; make a Gemm of a flat product and its bias."""
    _gemms(draft)
    _batch_norms(draft)
    _scaled_convolutions(draft)


def needs_contrib(model: ModelProto) -> None:
    """Declare ONNX Runtime's operations where the model uses them."""
    used = any(node.domain == CONTRIB for node in model.graph.node)
    if used and all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _identities(draft: Draft) -> None:
    for node in list(draft.nodes):
        if node.op_type in ("Identity", "Dropout") and (len(node.output) == 1 or not node.output[1]):
            source = draft.constant(node.input[0])
            if source is None:
                draft.bypass(node)


def _turned_weights(draft: Draft) -> None:
    """A transpose of a constant matrix is that matrix, laid out otherwise; it keeps its name for those who look for it."""
    for node in draft.each("Transpose"):
        array = draft.constant(node.input[0])
        if array is not None and node.output[0] not in draft.outputs:
            turned = np.ascontiguousarray(array.transpose(attributes(node).get("perm", tuple(reversed(range(array.ndim))))))
            draft.read_instead(node.output[0], draft.new_constant(f"{node.input[0]}.T", turned, node.input[0]))
            draft.remove(node)


def _rows(draft: Draft) -> None:
    """Keras convolves over lines as images of one row, which it leaves and enters around each ReLU; an image may stay one."""
    readers = draft.readers()
    for node in draft.each("Squeeze"):
        while (cut := draft.only_reader(node.output[0], readers)) is not None and _on_rows(draft, cut, node):
            wide = draft.new_tensor(f"{cut.output[0]}/row")
            place = list(cut.input).index(node.output[0])
            cut.input[place], node.output[0], cut.output[0], node.input[0] = node.input[0], cut.output[0], wide, wide
            draft.maker |= {wide: cut, node.output[0]: node}
    for node in draft.each("Unsqueeze"):
        before = _made(draft, node.input[0], "Squeeze")
        axes = [draft.constant(each.input[1]) if each is not None and len(each.input) > 1 else None for each in (node, before)]
        if before is None or axes[0] is None or not np.array_equal(axes[0], axes[1]) or node.output[0] in draft.outputs:
            continue
        draft.read_instead(node.output[0], before.input[0])
        draft.renamed[node.output[0]] = before.input[0]
        draft.remove(node)


def _on_rows(draft: Draft, node: NodeProto, squeeze: NodeProto) -> bool:
    """Whether a node may come before a Squeeze: a ReLU, or a product or sum with a constant, which is given the row's axis then."""
    if node.op_type in ("Relu", "Clip"):
        return node.input[0] == squeeze.output[0]
    axes = draft.constant(squeeze.input[1]) if len(squeeze.input) > 1 else None
    place = next((place for place, name in enumerate(node.input) if name != squeeze.output[0]), 0)
    other = draft.constant(node.input[place])
    if node.op_type not in ("Mul", "Add") or axes is None or axes.size != 1 or other is None or other.ndim != 3:
        return False
    node.input[place] = draft.new_constant(f"{node.input[place]}/row", np.expand_dims(other, int(axes.reshape(()))))
    return True


def _means(draft: Draft) -> None:
    """ReduceMean over the last two of four axes."""
    for node in draft.each("ReduceMean"):
        given = attributes(node)
        axes = draft.constant(node.input[1]) if len(node.input) > 1 else given.get("axes")
        if axes is None or sorted(int(axis) for axis in np.ravel(axes)) not in ([2, 3], [-2, -1]) or not _image(draft, node.input[0]):
            continue
        if given.get("keepdims", 1):
            draft.add("GlobalAveragePool", [node.input[0]], node.output[0], node)
        else:
            pooled = draft.new_tensor(f"{node.output[0]}/pooled")
            draft.add("GlobalAveragePool", [node.input[0]], pooled, node)
            draft.add("Flatten", [pooled], node.output[0], node)
        draft.remove(node)


_PLANES = ("Relu", "Clip", "BatchNormalization", "MaxPool", "Add", "Concat", "Mul", "Sigmoid", "HardSwish")


def _image(draft: Draft, name: str) -> bool:
    """Whether a tensor comes from a convolution over an image, past operations that keep its four axes."""
    node = draft.maker.get(name)
    while node is not None and node.op_type in _PLANES:
        node = draft.maker.get(node.input[0])
    return node is not None and node.op_type == "Conv" and len(attributes(node).get("kernel_shape", ())) == 2


def _tensordots(draft: Draft) -> None:
    """Keras multiplies (batch, length, in) as (batch * length, in); MatMul takes it as it is."""
    readers = draft.readers()
    for node in draft.each("MatMul"):
        before, after = draft.maker.get(node.input[0]), draft.only_reader(node.output[0], readers)
        weight = draft.constant(node.input[1])
        if (
            before is None
            or after is None
            or weight is None
            or weight.ndim != 2
            or before.op_type != "Reshape"
            or after.op_type != "Reshape"
        ):
            continue
        flat = draft.constant(before.input[1])
        if flat is None or flat.tolist() != [-1, weight.shape[0]] or not _same_rows(draft, after, before.input[0], weight.shape[1]):
            continue
        node.input[0] = before.input[0]
        draft.ranks[node.output[0]] = draft.ranks[before.input[0]]  # the product is as deep as what it reads now
        draft.bypass(after)


def _biases(draft: Draft) -> None:
    """Keras adds the bias of heads, (heads, size), behind the reshape into heads; flat, it goes into the product's kernel."""
    readers = draft.readers()
    for node in draft.each("MatMul"):
        weight, shaped = draft.constant(node.input[1]), draft.only_reader(node.output[0], readers)
        if weight is None or weight.ndim != 2 or shaped is None or shaped.op_type != "Reshape":
            continue
        add, sizes = draft.only_reader(shaped.output[0], readers), draft.constant(shaped.input[1])
        if add is None or add.op_type != "Add" or sizes is None:
            continue
        bias = draft.constant(add.input[1] if add.input[0] == shaped.output[0] else add.input[0])
        if bias is None or bias.ndim == 0 or bias.size != weight.shape[1] or sizes.tolist()[-bias.ndim :] != list(bias.shape):
            continue
        flat, total = draft.new_constant(f"{add.output[0]}/bias", bias.reshape(-1)), draft.new_tensor(f"{node.output[0]}/biased")
        draft.add("Add", [node.output[0], flat], total, node)
        shaped.input[0] = total
        add.input[:] = [shaped.output[0]]
        draft.bypass(add)


def _same_rows(draft: Draft, after: NodeProto, source: str, columns: int) -> bool:
    """Whether a Reshape gives back the leading axes of `source`: its sizes are taken from the shape of that, and end in `columns`."""
    sizes = draft.maker.get(after.input[1])
    while sizes is not None and sizes.op_type == "Cast":
        sizes = draft.maker.get(sizes.input[0])
    if sizes is None or sizes.op_type != "Concat":
        return False
    last, rank = draft.constant(sizes.input[-1]), draft.ranks.get(source)
    axes = [axis for name in sizes.input[:-1] for axis in _axes_of(draft, name, source)]
    return last is not None and last.tolist() == [columns] and rank is not None and axes == list(range(rank - 1))


def _axes_of(draft: Draft, name: str, source: str) -> list[int]:
    """Return the axes of `source` whose sizes a tensor holds, in its order, or [-1] where it holds something else."""
    node = draft.maker.get(name)
    if node is None or node.op_type not in ("Cast", "Gather", "Slice", "Shape"):
        return [-1]
    if node.op_type == "Shape":
        return list(range(draft.ranks.get(source, 0))) if node.input[0] == source and not node.attribute else [-1]
    axes = np.array(_axes_of(draft, node.input[0], source))
    numbers = [draft.constant(each) for each in node.input[1:]]
    if node.op_type == "Cast":
        return [int(axis) for axis in axes]
    if any(array is None for array in numbers):
        return [-1]
    picked = numbers[0] if node.op_type == "Gather" else slice(*(int(np.ravel(numbers[place])[0]) for place in (0, 1)))
    return [int(axis) for axis in np.ravel(axes[picked])] if len(numbers) < 4 else [-1]


def _layer_norms(draft: Draft) -> None:
    """x * (r * gamma) + (-mean * (r * gamma) + beta), r = 1 / sqrt(var + eps), as Keras computes it."""
    for out in draft.each("Add"):
        found = _layer_norm(draft, out)
        if found is not None:
            source, gamma, beta, epsilon = found
            scale = draft.new_constant(f"{out.output[0]}/gamma", gamma.reshape(-1))
            shift = draft.new_constant(f"{out.output[0]}/beta", beta.reshape(-1))
            draft.remove(out)
            draft.add("LayerNormalization", [source, scale, shift], out.output[0], out, axis=-1, epsilon=epsilon)


def _layer_norm(draft: Draft, out: NodeProto) -> tuple[str, Array, Array, float] | None:
    scaled, shift = (_made(draft, name, kind) for name, kind in zip(out.input, ("Mul", "Add"), strict=True))
    if scaled is None or shift is None:
        return None
    product, (beta,) = _made(draft, shift.input[0], "Mul"), (draft.constant(shift.input[1]),)
    source, factor = scaled.input
    gain = _made(draft, factor, "Mul")
    if product is None or beta is None or gain is None or factor not in product.input:
        return None
    gamma, inverse = draft.constant(gain.input[1]), _made(draft, gain.input[0], "Reciprocal")
    negative = _made(draft, next(name for name in product.input if name != factor), "Neg")
    root = _made(draft, inverse.input[0], "Sqrt") if inverse is not None else None
    total = _made(draft, root.input[0], "Add") if root is not None else None
    if gamma is None or negative is None or total is None:
        return None
    epsilon, mean = draft.scalar(total.input[1]), draft.maker.get(negative.input[0])
    if epsilon is None or mean is None or mean.input[0] != source or not _last_mean(draft, mean):
        return None
    same = _variance(draft, total.input[0], source, mean.output[0]) and gamma.size == gamma.shape[-1] and beta.size == beta.shape[-1]
    return (source, gamma, beta, epsilon) if same else None


def _variance(draft: Draft, name: str, source: str, mean: str) -> bool:
    """Whether a tensor is the mean of the squares of `source - mean`."""
    pool = draft.maker.get(name)
    square = _made(draft, pool.input[0], "Mul") if pool is not None and _last_mean(draft, pool) else None
    apart = _made(draft, square.input[0], "Sub") if square is not None and square.input[0] == square.input[1] else None
    return apart is not None and list(apart.input) == [source, mean]


def _last_mean(draft: Draft, node: NodeProto) -> bool:
    """Whether a node is a mean over the last axis; tf2onnx writes that of a (batch, length, width) as GlobalAveragePool."""
    if node.op_type == "GlobalAveragePool":
        return True
    axes = draft.constant(node.input[1]) if len(node.input) > 1 else attributes(node).get("axes")
    return node.op_type == "ReduceMean" and axes is not None and list(np.ravel(axes)) in ([2], [-1])


def _gelus(draft: Draft) -> None:
    """x/2 * (1 + erf(x / sqrt(2))), also as x/2 * (1 - erf(-x / sqrt(2))), and the approximation x/2 * (1 + tanh(...)), see `_cubic`."""
    for out in draft.each("Mul"):
        for half, other in (tuple(out.input), tuple(reversed(out.input))):
            source = _halved(draft, half)
            kind = _gelu_kind(draft, other, source) if source else None
            if source and kind:
                draft.remove(out)
                draft.add(kind, [source], out.output[0], out, domain=CONTRIB)
                break


def _halved(draft: Draft, name: str) -> str | None:
    node = _made(draft, name, "Mul")
    return _other(draft, node, 0.5) if node is not None else None


def _gelu_kind(draft: Draft, name: str, source: str) -> str | None:
    if _complement(draft, name, source):
        return "Gelu"
    plus = _made(draft, name, "Add")
    inner = _other(draft, plus, 1.0) if plus is not None else None
    node = draft.maker.get(inner) if inner else None
    if node is None or node.op_type not in ("Erf", "Tanh"):
        return None
    if node.op_type == "Erf":
        scaled = draft.maker.get(node.input[0])
        if scaled is None or (scaled.input[0] != source and scaled.op_type == "Div"):
            return None
        divided = scaled.op_type == "Div" and _close(draft.scalar(scaled.input[1]), np.sqrt(2))
        times = scaled.op_type == "Mul" and _other(draft, scaled, np.sqrt(0.5)) == source
        return "Gelu" if divided or times else None
    return "FastGelu" if _cubic(draft, node.input[0], source) else None


def _complement(draft: Draft, name: str, source: str) -> bool:
    """Whether a tensor is 1 - erf(-x / sqrt(2)), as which TensorFlow's erfc is written."""
    minus = _made(draft, name, "Sub")
    erf = _made(draft, minus.input[1], "Erf") if minus is not None and _close(draft.scalar(minus.input[0]), 1.0) else None
    scaled = _made(draft, erf.input[0], "Mul") if erf is not None else None
    negative = _other(draft, scaled, np.sqrt(0.5))
    turned = _made(draft, negative, "Neg") if negative else None
    return _other(draft, scaled, -np.sqrt(0.5)) == source or (turned is not None and turned.input[0] == source)


def _cubic(draft: Draft, name: str, source: str) -> bool:
    """Whether a tensor is sqrt(2/pi) * (x + 0.044715 x^3)."""
    scaled = _made(draft, name, "Mul")
    inner = _other(draft, scaled, np.sqrt(2 / np.pi)) if scaled is not None else None
    total = _made(draft, inner, "Add") if inner else None
    if total is None or source not in total.input:
        return False
    term = _made(draft, next((each for each in total.input if each != source), ""), "Mul")
    cube = _other(draft, term, 0.044715) if term is not None else None
    power = _made(draft, cube, "Pow") if cube else None
    return power is not None and power.input[0] == source and _close(draft.scalar(power.input[1]), 3.0)


def _other(draft: Draft, node: NodeProto | None, number: float) -> str | None:
    """Return the input of a node whose other input is the constant `number`, or None."""
    if node is None or len(node.input) != 2:
        return None
    first, second = node.input
    if _close(draft.scalar(second), number):
        return first
    return second if _close(draft.scalar(first), number) else None


def _close(found: float | None, number: float) -> bool:
    return found is not None and abs(found - number) <= 1e-5 * abs(number)


def _made(draft: Draft, name: str, kind: str) -> NodeProto | None:
    """Return the node that makes a tensor, where it is of this kind."""
    node = draft.maker.get(name)
    return node if node is not None and node.op_type == kind else None


def _batch_norms(draft: Draft) -> None:
    readers = draft.readers()
    for node in draft.each("BatchNormalization"):
        conv = _made(draft, node.input[0], "Conv")
        numbers = [draft.constant(name) for name in node.input[1:5]]
        if conv is None or any(array is None for array in numbers) or draft.only_reader(conv.output[0], readers) is not node:
            continue
        gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in numbers)
        factor = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
        _scale(draft, conv, factor, beta - mean * factor, node)


def _scaled_convolutions(draft: Draft) -> None:
    for kind in ("Mul", "Add"):
        readers = draft.readers()
        for node in draft.each(kind):
            conv = next((found for name in node.input if (found := _made(draft, name, "Conv")) is not None), None)
            if conv is None or draft.only_reader(conv.output[0], readers) is not node:
                continue
            other = draft.constant(node.input[1] if node.input[0] == conv.output[0] else node.input[0])
            weight = draft.constant(conv.input[1])
            if other is None or weight is None or not _by_channel(other, weight):
                continue
            ones, flat = np.ones(len(weight)), other.reshape(-1)
            factor, shift = (flat, 0 * ones) if kind == "Mul" else (ones, flat)
            _scale(draft, conv, factor.astype(np.float64), shift.astype(np.float64), node)


def _gemms(draft: Draft) -> None:
    """Gemm takes a bias in integers; a MatMul of two axes is one, with the bias behind it."""
    readers = draft.readers()
    for node in draft.each("MatMul"):
        if draft.ranks.get(node.input[0]) != 2 or draft.constant(node.input[1]) is None:
            continue
        node.op_type = "Gemm"
        add = draft.only_reader(node.output[0], readers)
        bias = next((name for name in add.input if draft.constant(name) is not None), None) if add is not None else None
        numbers = draft.constant(bias) if bias else None
        if add is not None and add.op_type == "Add" and bias is not None and numbers is not None and numbers.ndim == 1:
            node.input.append(bias)
            node.output[0] = add.output[0]
            draft.maker[add.output[0]] = node
            draft.remove(add)


def _by_channel(other: Array, weight: Array) -> bool:
    """Whether a constant has one number for each output channel of a convolution, and broadcasts along that axis."""
    return other.size == len(weight) and other.ndim >= weight.ndim - 1 and other.shape[1 - weight.ndim] == len(weight)


def _scale(draft: Draft, conv: NodeProto, factor: Array, shift: Array, behind: NodeProto) -> None:
    """Let a convolution give `factor * y + shift` for each channel, and take the place of the node behind it."""
    weight, bias = draft.constant(conv.input[1]), draft.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(1)
    if weight is None or bias is None:
        return
    spread = factor.reshape(-1, *[1] * (weight.ndim - 1))
    scaled = draft.new_constant(conv.input[1], (weight * spread).astype(weight.dtype), conv.input[1])
    moved = draft.new_constant(f"{conv.output[0]}/bias", (bias * factor + shift).astype(weight.dtype))
    conv.input[1] = scaled
    del conv.input[2:]
    conv.input.append(moved)
    conv.output[0] = behind.output[0]
    draft.maker[behind.output[0]] = conv
    draft.remove(behind)
