"""A program as an ONNX model, written node by node: no training framework has a hand in it."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from tests.property.masking import inputs, numbers
from tests.property.programs import BATCH, Program, Step, Value, distances

ACTS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "Gelu"}
PAIRS = {"add": "Add", "sub": "Sub", "mul": "Mul", "max": "Max"}
SHAPES = {
    "conv": lambda a, width, rank: (a["out"], width // a["groups"], *(a["kernel"],) * rank),
    "transposed": lambda a, width, rank: (a["out"], width, *(2,) * rank),
    "linear": lambda a, width, rank: (a["out"], width),
}


class Builder:
    """Appends nodes; `names[number]` is what ONNX calls a program's value."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values = program.values
        self.nodes: list[Any] = []
        self.stored: dict[str, np.ndarray] = {}
        self.names = ["x"]
        self._fresh = (f"v{number}" for number in count())

    def node(self, op: str, *given: str, outputs: int = 1, **attrs: Any) -> str:
        """Append a node and return the name of its first result."""
        names = [next(self._fresh) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(given), names, names[0], **attrs))
        self.last = names
        return names[0]

    def whole(self, *values: int) -> str:
        """Store whole numbers and return their name."""
        name = f"n{len(self.stored)}"
        self.stored[name] = np.asarray(values, np.int64)
        return name

    def number(self, value: float) -> str:
        name = f"n{len(self.stored)}"
        self.stored[name] = np.asarray(value, np.float32)
        return name

    def parameter(self, path: str, shape: tuple[int, ...], native: Any = lambda array: array) -> str:
        if path not in self.stored:
            self.stored[path] = np.ascontiguousarray(native(numbers(path, shape, self.program.seed)))
        return path

    def finished(self) -> ModelProto:
        kind = TensorProto.INT64 if self.program.given.kind == "indices" else TensorProto.FLOAT
        given = helper.make_tensor_value_info("x", kind, ["n", *self.program.given.shape[1:]])
        result = helper.make_tensor_value_info(self.names[-1], TensorProto.FLOAT, ["n", *self.values[-1].shape[1:]])
        initial = [numpy_helper.from_array(array, name) for name, array in self.stored.items()]
        graph = helper.make_graph(self.nodes, "program", [given], [result], initial)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        checker.check_model(model)
        return model


def _layer(b: Builder, step: Step, read: Value, x: str) -> str:
    layer, (first, original) = step.layer, b.program.layers()[step.layer]
    a, shape = first.attrs, SHAPES[step.op](first.attrs, original.channels, len(original.shape) - 2)
    bias = [b.parameter(f"{layer}.bias", shape[:1])] if a.get("bias", True) else []
    if step.op == "linear":
        product = b.node("MatMul", x, b.parameter(f"{layer}.weight", shape, np.transpose))
        return b.node("Add", product, bias[0]) if bias else product
    if step.op == "transposed":
        return b.node(
            "ConvTranspose", x, b.parameter(f"{layer}.weight", shape, lambda w: w.swapaxes(0, 1)), *bias, strides=[2] * (len(shape) - 2)
        )
    pads = [a["kernel"] // 2 if a["padded"] else 0] * 2 * (len(shape) - 2)
    return b.node("Conv", x, b.parameter(f"{layer}.weight", shape), *bias, pads=pads, group=a["groups"])


def _batch_norm(b: Builder, step: Step, read: Value, x: str) -> str:
    keys = ("weight", "bias", "running_mean", "running_var")
    return b.node("BatchNormalization", x, *(b.parameter(f"{step.layer}.{key}", (read.channels,)) for key in keys))


def _layer_norm(b: Builder, step: Step, read: Value, x: str) -> str:
    return b.node("LayerNormalization", x, *(b.parameter(f"{step.layer}.{key}", (read.channels,)) for key in ("weight", "bias")))


def _group_norm(b: Builder, step: Step, read: Value, x: str) -> str:
    """As exporters write it: groups as the channels of an instance normalisation, then scale and shift."""
    groups = step.attrs["groups"]
    ones, zeros = (b.node("Expand", b.number(value), b.whole(groups)) for value in (1.0, 0.0))
    blocks = b.node("Reshape", x, b.whole(0, groups, -1))
    mixed = b.node("Reshape", b.node("InstanceNormalization", blocks, ones, zeros), b.node("Shape", x))
    weight, bias = (b.parameter(f"{step.layer}.{key}", (read.channels,)) for key in ("weight", "bias"))
    around = b.whole(*range(1, len(read.shape) - 1))
    return b.node("Add", b.node("Mul", mixed, b.node("Unsqueeze", weight, around)), b.node("Unsqueeze", bias, around))


def _act(b: Builder, step: Step, read: Value, x: str) -> str:
    function = step.attrs["function"]
    if function == "shifted":
        return b.node("Add", b.node("Mul", x, b.number(0.5)), b.number(1.0))
    return b.node("Softmax", x, axis=-1) if function == "softmax" else b.node(ACTS[function], x)


def _reduce(b: Builder, step: Step, read: Value, x: str) -> str:
    op = "ReduceSum" if step.attrs["function"] == "sum" else "ReduceMean"
    return b.node(op, x, b.whole(*step.attrs["axes"]), keepdims=int(step.attrs["keep"]))


def _matmul(b: Builder, step: Step, read: Value, left: str, right: str) -> str:
    return b.node("MatMul", left, b.node("Transpose", right, perm=[0, 1, 3, 2]) if step.attrs["turned"] else right)


def _bare(b: Builder, step: Step, read: Value, x: str) -> str:
    weight = b.parameter(step.layer, (read.channels, step.attrs["out"]))
    return b.node("MatMul", x, weight) if step.attrs["how"] == "matmul" else b.node("Einsum", x, weight, equation="...c,cd->...d")


def _scaled(b: Builder, step: Step, read: Value, x: str) -> str:
    around = (1, -1, *(1 for _ in read.shape[2:])) if step.attrs["first"] else (-1,)
    return b.node("Mul", x, b.parameter(step.layer, (read.channels,), lambda vector: vector.reshape(around)))


def _recurrent(b: Builder, step: Step, read: Value, x: str) -> str:
    """As torch's exporter writes it: time first, and the directions side by side afterwards."""
    a, layer = step.attrs, step.layer
    directions, (_, length, width) = 1 + a["both"], read.shape
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[a["cell"]] * a["units"]
    shapes = {"weight_ih": (rows, width), "weight_hh": (rows, a["units"]), "bias": (2 * rows,)}
    weights = [b.parameter(f"{layer}.{key}_l0", (directions, *shape)) for key, shape in shapes.items()]
    options = {"linear_before_reset": 1} if a["cell"] == "GRU" else {}
    direction = "bidirectional" if a["both"] else "forward"
    turned = b.node("Transpose", x, perm=[1, 0, 2])
    made = b.node(a["cell"], turned, *weights, hidden_size=a["units"], direction=direction, **options)
    return b.node("Reshape", b.node("Transpose", made, perm=[2, 0, 1, 3]), b.whole(0, length, directions * a["units"]))


def _linear(b: Builder, layer: str, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
    """A product with a stored weight (out, in), and a bias or none."""
    product = b.node("MatMul", x, b.parameter(f"{layer}.weight", weight.shape, lambda _: weight.T))
    return product if bias is None else b.node("Add", product, b.parameter(f"{layer}.bias", bias.shape, lambda _: bias))


def _projections(b: Builder, layer: str, a: dict, width: int, source: int) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Return the weight and bias of an attention's four projections, out of those that torch's layer has."""

    def drawn(name: str, *shape: int) -> np.ndarray:
        return numbers(f"{layer}.{name}", shape, b.program.seed)

    inner, keys = a["heads"] * a["size"], a["heads"] // a["shared"] * a["size"]
    if a["shared"] > 1:
        shapes = {"q": (inner, width), "k": (keys, source), "v": (keys, source), "out_proj": (width, inner)}
        return {
            key: (drawn(f"{key}.weight", *shape), drawn(f"{key}.bias", shape[0]) if a["bias"] else None) for key, shape in shapes.items()
        }
    if source == width:
        weights = np.split(drawn("in_proj_weight", 3 * inner, width), 3)
    else:
        weights = [drawn(f"{key}_proj_weight", inner, size) for key, size in (("q", width), ("k", source), ("v", source))]
    biases = np.split(drawn("in_proj_bias", 3 * inner), 3) if a["bias"] else [None] * 3
    out = drawn("out_proj.weight", width, inner), drawn("out_proj.bias", width) if a["bias"] else None
    return {**dict(zip("qkv", zip(weights, biases, strict=True), strict=True)), "out_proj": out}


def _attended(b: Builder, layer: str, a: dict, x: str, read: Value, source: str, other: Value) -> str:
    """Attention as exporters write it: heads on an axis of their own, or beside the batch where time comes first."""
    projections = _projections(b, layer, a, read.channels, other.channels)
    if not a["first"] and a["shared"] == 1:
        x, source = b.node("Transpose", x, perm=[1, 0, 2]), b.node("Transpose", source, perm=[1, 0, 2])
    values = {key: _linear(b, f"{layer}.{key}", given, *projections[key]) for key, given in (("q", x), ("k", source), ("v", source))}
    q, k, v = (_split(b, a, value, a["heads"] // (1 if key == "q" else a["shared"])) for key, value in values.items())
    if a["shared"] > 1:
        k, v = (_repeated(b, a, value, other.shape[1]) for value in (k, v))
    rank = 4 if a["first"] or a["shared"] > 1 else 3
    turned = b.node("Transpose", k, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = b.node("MatMul", b.node("Mul", q, b.number(a["size"] ** -0.5)), turned)
    if a["causal"]:
        mask = np.triu(np.full((read.shape[1], other.shape[1]), -1e30), 1)
        scores = b.node("Add", scores, b.number(mask))
    mixed = b.node("MatMul", b.node("Softmax", scores, axis=-1), v)
    return _put_together(b, layer, a, mixed, read, projections["out_proj"])


def _split(b: Builder, a: dict, x: str, heads: int) -> str:
    """Bring (N, T, heads * size) to (N, heads, T, size), or (T, N, heads * size) to (N * heads, T, size)."""
    if a["first"] or a["shared"] > 1:
        return b.node("Transpose", b.node("Reshape", x, b.whole(0, 0, heads, a["size"])), perm=[0, 2, 1, 3])
    return b.node("Transpose", b.node("Reshape", x, b.whole(0, heads * BATCH, a["size"])), perm=[1, 0, 2])


def _put_together(b: Builder, layer: str, a: dict, mixed: str, read: Value, projection: Any) -> str:
    inner = a["heads"] * a["size"]
    if a["first"] or a["shared"] > 1:
        joined = b.node("Reshape", b.node("Transpose", mixed, perm=[0, 2, 1, 3]), b.whole(0, 0, inner))
        return _linear(b, f"{layer}.out_proj", joined, *projection)
    joined = b.node("Reshape", b.node("Transpose", mixed, perm=[1, 0, 2]), b.whole(read.shape[1], BATCH, inner))
    return b.node("Transpose", _linear(b, f"{layer}.out_proj", joined, *projection), perm=[1, 0, 2])


def _repeated(b: Builder, a: dict, x: str, length: int) -> str:
    """Let each head of keys or values stand for as many as share it: (N, few, T, size) to (N, heads, T, size)."""
    few = a["heads"] // a["shared"]
    wide = b.node("Expand", b.node("Unsqueeze", x, b.whole(2)), b.whole(1, 1, a["shared"], 1, 1))
    return b.node("Reshape", wide, b.whole(0, few * a["shared"], length, a["size"]))


def _attention(b: Builder, step: Step, read: Value, x: str, source: str) -> str:
    return _attended(b, step.layer, step.attrs, x, read, source, b.values[step.inputs[1]])


def _encoder(b: Builder, step: Step, read: Value, x: str) -> str:
    a, layer, width = step.attrs, step.layer, read.channels
    attrs = {**a, "size": width // a["heads"], "shared": 1, "causal": False}

    def normed(name: str, value: str) -> str:
        weights = [b.parameter(f"{layer}.{name}.{key}", (width,)) for key in ("weight", "bias")[: 1 + a["bias"]]]
        return b.node("LayerNormalization", value, *weights)

    def linear(name: str, value: str, out: int, given: int) -> str:
        weight, bias = (
            numbers(f"{layer}.{name}.{key}", shape, b.program.seed) for key, shape in (("weight", (out, given)), ("bias", (out,)))
        )
        return _linear(b, f"{layer}.{name}", value, weight, bias if a["bias"] else None)

    def attend(value: str) -> str:
        return _attended(b, f"{layer}.self_attn", attrs, value, read, value, read)

    def feed(value: str) -> str:
        return linear("linear2", b.node(ACTS[a["function"]], linear("linear1", value, a["inner"], width)), width, a["inner"])

    if a["early"]:
        x = b.node("Add", x, attend(normed("norm1", x)))
        return b.node("Add", x, feed(normed("norm2", x)))
    x = normed("norm1", b.node("Add", x, attend(x)))
    return normed("norm2", b.node("Add", x, feed(x)))


def _embedding(b: Builder, step: Step, read: Value, x: str) -> str:
    return b.node("Gather", b.parameter(f"{step.layer}.weight", (step.attrs["rows"], step.attrs["width"])), x)


def _tied(b: Builder, step: Step, read: Value, x: str) -> str:
    return b.node("MatMul", x, b.node("Transpose", f"{step.attrs['table']}.weight", perm=[1, 0]))


def _relative(b: Builder, step: Step, read: Value, x: str) -> str:
    _, heads, length, _ = read.shape
    index = b.node("Reshape", b.whole(*np.ravel(distances(length))), b.whole(length, length))
    rows = b.node("Gather", b.parameter(step.layer, (2 * length - 1, heads)), index)
    return b.node("Add", x, b.node("Transpose", rows, perm=[2, 0, 1]))


def _flatten(b: Builder, step: Step, read: Value, x: str) -> str:
    if step.attrs["order"] == "NHWC" and step.attrs["first"]:
        x = b.node("Transpose", x, perm=[0, *range(2, len(read.shape)), 1])
    return b.node("Flatten", x)


def _tokens(b: Builder, step: Step, read: Value, x: str) -> str:
    return b.node("Transpose", b.node("Reshape", x, b.whole(0, 0, -1)), perm=[0, 2, 1])


def _chunk(b: Builder, step: Step, read: Value, x: str) -> list[str]:
    axis, parts = step.attrs["axis"], step.attrs["count"]
    b.node("Split", x, b.whole(*[read.shape[axis] // parts] * parts), outputs=parts, axis=axis)
    return b.last


def _slice(b: Builder, step: Step, read: Value, x: str) -> str:
    a = step.attrs
    return b.node("Slice", x, b.whole(a["start"]), b.whole(a["stop"]), b.whole(a["axis"]), b.whole(a["step"]))


def _stack(b: Builder, step: Step, read: Value, *xs: str) -> str:
    joined = b.node("Concat", *(b.node("Unsqueeze", x, b.whole(1)) for x in xs), axis=1)
    return b.node("ReduceSum" if step.attrs["function"] == "sum" else "ReduceMean", joined, b.whole(1), keepdims=0)


def _heads(b: Builder, step: Step, read: Value, x: str) -> str:
    split = b.node("Reshape", x, b.whole(0, 0, read.channels // step.attrs["size"], step.attrs["size"]))
    return b.node("Transpose", split, perm=[0, 2, 1, 3])


def _merged(b: Builder, step: Step, read: Value, x: str) -> str:
    return b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3]), b.whole(0, 0, read.shape[1] * read.shape[3]))


def _pool(b: Builder, step: Step, read: Value, x: str) -> str:
    sides = len(read.shape) - 2
    op = "MaxPool" if step.attrs["function"] == "max" else "AveragePool"
    return b.node(op, x, kernel_shape=[2] * sides, strides=[2] * sides)


def _resize(b: Builder, step: Step, read: Value, x: str) -> str:
    b.stored["scales"] = np.asarray([1, 1, 2, 2], np.float32)
    return b.node("Resize", x, "", "scales", mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")


def _pad(b: Builder, step: Step, read: Value, x: str) -> str:
    amounts = [0, 0, *(1 for _ in read.shape[2:])]
    return b.node("Pad", x, b.whole(*amounts, *amounts))


def _shuffle(b: Builder, step: Step, read: Value, x: str) -> str:
    groups, (_, channels, *sides) = step.attrs["groups"], read.shape
    split = b.node("Reshape", x, b.whole(0, groups, channels // groups, *sides))
    return b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, *range(3, len(read.shape) + 1)]), b.whole(0, channels, *sides))


OPS = {
    **dict.fromkeys(("conv", "transposed", "linear"), _layer),
    **{name: lambda b, step, read, left, right: b.node(PAIRS[step.op], left, right) for name in PAIRS},
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "act": _act,
    "recurrent": _recurrent,
    "embedding": _embedding,
    "attention": _attention,
    "encoder": _encoder,
    "tied": _tied,
    "placed": lambda b, step, read, x: b.node("Add", x, b.parameter(step.layer, read.shape[1:])),
    "relative": _relative,
    "reduce": _reduce,
    "matmul": _matmul,
    "bare": _bare,
    "scaled": _scaled,
    "transpose": lambda b, step, read, x: b.node("Transpose", x, perm=step.attrs["order"]),
    "flatten": _flatten,
    "tokens": _tokens,
    "concat": lambda b, step, read, *xs: b.node("Concat", *xs, axis=step.attrs["axis"]),
    "chunk": _chunk,
    "slice": _slice,
    "gather": lambda b, step, read, x: b.node("Gather", x, b.whole(*step.attrs["index"]), axis=step.attrs["axis"]),
    "select": lambda b, step, read, x: b.node("Gather", x, b.node("Squeeze", b.whole(step.attrs["index"])), axis=step.attrs["axis"]),
    "stack": _stack,
    "heads": _heads,
    "merged": _merged,
    "pool": _pool,
    "resize": _resize,
    "pixels": lambda b, step, read, x: b.node("DepthToSpace", x, blocksize=2, mode="CRD"),
    "pad": _pad,
    "shuffle": _shuffle,
}


def build(program: Program, whole: bool = True) -> tuple[ModelProto, np.ndarray]:
    """Return the program's model and its example inputs; where not the `whole`, exporters' way: without what reaches no output."""
    builder, used = Builder(program), range(len(program.steps)) if whole else program.used()
    for number, step in enumerate(program.steps):
        if number not in used:
            builder.names.extend([""] * len(step.results))
            continue
        read = builder.values[step.inputs[0]]
        made = OPS[step.op](builder, step, read, *(builder.names[number] for number in step.inputs))
        builder.names.extend([made] if isinstance(made, str) else made)
    return builder.finished(), inputs(program)


def learning(model: ModelProto) -> set[tuple[str, bool]]:
    """Return nothing: a file is not trained."""
    return set()
