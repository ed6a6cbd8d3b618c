"""A program as a Keras model, functional or subclassed; images, volumes and lines lie with their channels last."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from tests.property.masking import inputs, numbers
from tests.property.programs import Program, Step, Value, distances

ACTS = {
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "shifted": lambda x: x * 0.5 + 1.0,
    "softmax": ops.softmax,
}
PAIRS = {"add": ops.add, "sub": ops.subtract, "mul": ops.multiply, "max": ops.maximum}
CONVS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
NATIVE = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


class Bare(layers.Layer):
    """x times a matrix of its own, by matmul or by einsum."""

    def __init__(self, out, how, **options):
        super().__init__(**options)
        self.out, self.how = out, how

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], self.out), name="matrix")

    def call(self, x):
        return ops.matmul(x, self.matrix) if self.how == "matmul" else ops.einsum("...c,cd->...d", x, self.matrix)


class Scaled(layers.Layer):
    """x times a vector of its own."""

    def build(self, shape):
        self.vector = self.add_weight(shape=(shape[-1],), name="vector")

    def call(self, x):
        return x * self.vector


class Placed(layers.Layer):
    """x plus a table of its own."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="table")

    def call(self, x):
        return x + self.table


class Relative(layers.Layer):
    """Scores plus what a table of its own has for each distance."""

    def build(self, shape):
        self.table = self.add_weight(shape=(2 * shape[2] - 1, shape[1]), name="table")

    def call(self, x):
        rows = ops.take(self.table, np.asarray(distances(x.shape[-1])), axis=0)
        return x + ops.transpose(rows, (2, 0, 1))


class Encoder(layers.Layer):
    """A transformer's encoder layer, put together from Keras' own parts."""

    def __init__(self, width, a, **options):
        super().__init__(**options)
        self.early, bias = a["early"], a["bias"]
        self.attention = layers.MultiHeadAttention(a["heads"], width // a["heads"], use_bias=bias)
        self.norm1, self.norm2 = (layers.LayerNormalization(epsilon=1e-5, center=bias) for _ in range(2))
        self.linear1 = layers.Dense(a["inner"], a["function"], use_bias=bias)
        self.linear2 = layers.Dense(width, use_bias=bias)

    def call(self, x):
        if self.early:
            normed = self.norm1(x)
            x = x + self.attention(normed, normed)
            return x + self.linear2(self.linear1(self.norm2(x)))
        x = self.norm1(x + self.attention(x, x))
        return self.norm2(x + self.linear2(self.linear1(x)))


def _attention(a: dict, name: str) -> layers.Layer:
    if a["shared"] > 1:
        return layers.GroupQueryAttention(a["size"], a["heads"], a["heads"] // a["shared"], use_bias=a["bias"], name=name)
    return layers.MultiHeadAttention(a["heads"], a["size"], use_bias=a["bias"], name=name)


class Held(layers.Layer):
    """A layer of the user's own, which calls a function of keras.ops with variables that it holds."""

    def __init__(self, step, read, **options):
        super().__init__(**options)
        self.step, self.read = step, read

    def build(self, shape):
        for key, (size, trained) in _shapes(self.step, self.read).items():
            setattr(self, key, self.add_weight(shape=size, name=key, trainable=trained))

    def call(self, x):
        return _function(self.step, {key: getattr(self, key) for key in _shapes(self.step, self.read)}, x)


def holdable(step: Step, read: Value) -> bool:
    """Tell whether keras.ops has a function for a layer: none for group norms, nor for grouped convolutions."""
    return step.op != "group_norm" and (step.op != "conv" or step.attrs["groups"] == 1 or _depthwise(step, read))


def _depthwise(step: Step, read: Value) -> bool:
    return step.op == "conv" and step.attrs["groups"] == read.channels > 1 and len(read.shape) < 5


def _shapes(step: Step, read: Value) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Return the variables of a layer, as Keras' own one would store them, and whether they are trained."""
    a, width, rank = step.attrs, read.channels, len(read.shape) - 2
    if step.op in ("batch_norm", "layer_norm"):
        names = {"gamma": True, "beta": True} | ({"moving_mean": False, "moving_variance": False} if step.op == "batch_norm" else {})
        return {name: ((width,), trained) for name, trained in names.items()}
    kernel = {
        "linear": lambda: (width, a["out"]),
        "transposed": lambda: (*(2,) * rank, a["out"], width),
        "conv": lambda: (*(a["kernel"],) * rank, *((width, a["out"] // width) if _depthwise(step, read) else (width, a["out"]))),
    }[step.op]()
    return {"kernel": (kernel, True)} | ({"bias": ((a["out"],), True)} if a.get("bias", True) else {})


def _function(step: Step, held: dict, x):
    if step.op == "batch_norm":
        return ops.batch_normalization(x, held["moving_mean"], held["moving_variance"], -1, held["beta"], held["gamma"], 1e-5)
    if step.op == "layer_norm":
        return ops.layer_normalization(x, held["gamma"], held["beta"], -1, 1e-5)
    if step.op == "linear":
        y = ops.matmul(x, held["kernel"])
    elif step.op == "transposed":
        y = ops.conv_transpose(x, held["kernel"], 2)
    else:
        convolve = ops.conv if step.attrs["groups"] == 1 else ops.depthwise_conv
        y = convolve(x, held["kernel"], padding="same" if step.attrs["padded"] else "valid")
    return y + held["bias"] if "bias" in held else y


def _recurrent(a: dict, name: str) -> layers.Layer:
    kind = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}[a["cell"]]
    options = {"reset_after": a["units"] % 2 == 0} if a["cell"] == "GRU" else {}
    made = kind(a["units"], return_sequences=True, **options, **({} if a["both"] else {"name": name}))
    return layers.Bidirectional(made, name=name) if a["both"] else made


def _made(step: Step, read: Value) -> layers.Layer:
    a, name, rank = step.attrs, step.layer, len(read.shape) - 2
    if step.op == "conv":
        options = {"padding": "same" if a["padded"] else "valid", "use_bias": a["bias"], "name": name}
        if a["groups"] == read.channels > 1 and rank < 3:
            kind = layers.DepthwiseConv2D if rank == 2 else layers.DepthwiseConv1D
            return kind(a["kernel"], depth_multiplier=a["out"] // read.channels, **options)
        return CONVS[rank](a["out"], a["kernel"], groups=a["groups"], **options)
    made = {
        "transposed": lambda: (layers.Conv2DTranspose if rank == 2 else layers.Conv3DTranspose)(a["out"], 2, strides=2, name=name),
        "linear": lambda: layers.Dense(a["out"], use_bias=a["bias"], name=name),
        "batch_norm": lambda: layers.BatchNormalization(epsilon=1e-5, name=name),
        "group_norm": lambda: layers.GroupNormalization(a["groups"], epsilon=1e-5, name=name),
        "layer_norm": lambda: layers.LayerNormalization(epsilon=1e-5, name=name),
        "bare": lambda: Bare(a["out"], a["how"], name=name),
        "scaled": lambda: Scaled(name=name),
        "recurrent": lambda: _recurrent(a, name),
        "embedding": lambda: layers.Embedding(a["rows"], a["width"], name=name),
        "attention": lambda: _attention(a, name),
        "encoder": lambda: Encoder(read.channels, a, name=name),
        "placed": lambda: Placed(name=name),
        "relative": lambda: Relative(name=name),
    }
    return made[step.op]()


def _axis(axis: int, value: Value) -> int:
    """Return where an axis of the program's lies in Keras."""
    if value.kind == "plain" or axis == 0:
        return axis
    return len(value.shape) - 1 if axis == 1 else axis - 1


def _reduce(step: Step, read: Value, x):
    axes = tuple(_axis(axis, read) for axis in step.attrs["axes"])
    return (ops.sum if step.attrs["function"] == "sum" else ops.mean)(x, axes, keepdims=step.attrs["keep"])


def _flatten(step: Step, read: Value, x):
    if step.attrs["order"] == "NCHW" and read.kind != "plain":
        x = ops.transpose(x, (0, len(read.shape) - 1, *range(1, len(read.shape) - 1)))
    return ops.reshape(x, (-1, int(np.prod(read.shape[1:]))))


def _slice(step: Step, read: Value, x):
    a = step.attrs
    return x[(slice(None),) * _axis(a["axis"], read) + (slice(a["start"], a["stop"], a["step"]),)]


def _stack(step: Step, read: Value, *xs):
    return (ops.sum if step.attrs["function"] == "sum" else ops.mean)(ops.stack(xs, 1), 1)


def _heads(step: Step, read: Value, x):
    _, length, width = read.shape
    return ops.transpose(ops.reshape(x, (-1, length, width // step.attrs["size"], step.attrs["size"])), (0, 2, 1, 3))


def _merged(step: Step, read: Value, x):
    _, heads, length, size = read.shape
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, length, heads * size))


def _pool(step: Step, read: Value, x):
    return (ops.max_pool if step.attrs["function"] == "max" else ops.average_pool)(x, 2, 2)


def _pixels(step: Step, read: Value, x):
    _, channels, height, width = read.shape
    blocks = ops.reshape(x, (-1, height, width, channels // 4, 2, 2))
    return ops.reshape(ops.transpose(blocks, (0, 1, 4, 2, 5, 3)), (-1, 2 * height, 2 * width, channels // 4))


def _shuffle(step: Step, read: Value, x):
    groups, (_, channels, *sides) = step.attrs["groups"], read.shape
    rank = len(sides)
    blocks = ops.reshape(x, (-1, *sides, groups, channels // groups))
    return ops.reshape(ops.transpose(blocks, (*range(rank + 1), rank + 2, rank + 1)), (-1, *sides, channels))


OPS = {
    **{name: lambda step, read, a, b: PAIRS[step.op](a, b) for name in PAIRS},
    "act": lambda step, read, x: ACTS[step.attrs["function"]](x),
    "reduce": _reduce,
    "matmul": lambda step, read, a, b: ops.matmul(a, ops.transpose(b, (0, 1, 3, 2)) if step.attrs["turned"] else b),
    "transpose": lambda step, read, x: ops.transpose(x, step.attrs["order"]),
    "flatten": _flatten,
    "tokens": lambda step, read, x: ops.reshape(x, (-1, int(np.prod(read.shape[2:])), read.channels)),
    "concat": lambda step, read, *xs: ops.concatenate(xs, _axis(step.attrs["axis"], read)),
    "chunk": lambda step, read, x: ops.split(x, step.attrs["count"], _axis(step.attrs["axis"], read)),
    "slice": _slice,
    "gather": lambda step, read, x: ops.take(x, np.asarray(step.attrs["index"]), _axis(step.attrs["axis"], read)),
    "select": lambda step, read, x: x[:, step.attrs["index"]],
    "stack": _stack,
    "heads": _heads,
    "merged": _merged,
    "pool": _pool,
    "resize": lambda step, read, x: ops.repeat(ops.repeat(x, 2, 1), 2, 2),
    "pixels": _pixels,
    "pad": lambda step, read, x: ops.pad(x, [(0, 0), *[(1, 1)] * (len(read.shape) - 2), (0, 0)]),
    "shuffle": _shuffle,
}


def _run(program: Program, made: dict[str, layers.Layer], x):
    """Run the steps on a tensor, or on a symbolic one."""
    values, kinds = [x], program.values
    for step in program.steps:
        given = [values[number] for number in step.inputs]
        if step.op == "tied":
            result = ops.matmul(given[0], ops.transpose(made[step.attrs["table"]].embeddings))
        elif step.op == "attention":
            result = made[step.layer](*given, use_causal_mask=step.attrs["causal"])
        else:
            result = made[step.layer](*given) if step.layer else OPS[step.op](step, kinds[step.inputs[0]], *given)
        values.extend(result if isinstance(result, (tuple, list)) else [result])
    return values[-1]


class Network(keras.Model):
    """A program as a subclassed model."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        for name, (step, read) in program.layers().items():
            if name in _loose(program):
                for key, (shape, trained) in _shapes(step, read).items():
                    setattr(self, f"{name}_{key}", self.add_weight(shape=shape, name=f"{name}_{key}", trainable=trained))
            else:
                setattr(self, name, _layer(program, step, read))

    def call(self, x):
        return _run(self.program, {name: self._of(name, *first) for name, first in self.program.layers().items()}, x)

    def _of(self, name, step, read):
        """Return the layer of a name, or what calls a function with the variables that the model itself holds under that name."""
        if name not in _loose(self.program):
            return getattr(self, name)
        return partial(_function, step, {key: getattr(self, f"{name}_{key}") for key in _shapes(step, read)})


def _layer(program: Program, step: Step, read: Value) -> layers.Layer:
    held = step.layer in (*program.held, *program.loose) and holdable(step, read)
    return Held(step, read, name=step.layer) if held else _made(step, read)


def _loose(program: Program) -> set[str]:
    """Return the layers whose variables the model itself holds."""
    return {name for name, first in program.layers().items() if name in program.loose and holdable(*first)}


def build(program: Program) -> tuple[keras.Model, np.ndarray]:
    """Return the program's model, subclassed for odd seeds, its numbers set, and its example inputs."""
    x = inputs(program)
    if program.given.kind in ("image", "volume", "line"):
        x = np.moveaxis(x, 1, -1)
    # What a layer holds can be read outside of its call in a subclassed model only.
    if program.seed % 2 or any(step.op == "tied" for step in program.steps):
        model = Network(program)
        model(x)
        made = model.layers
        for name in _loose(program):
            for key in _shapes(*program.layers()[name]):
                variable = getattr(model, f"{name}_{key}")
                variable.assign(numbers(f"{name}.{NATIVE.get(key, key)}", tuple(variable.shape), program.seed))
                variable.trainable = variable.trainable and name not in program.frozen
    else:
        named = {name: _layer(program, step, read) for name, (step, read) in program.layers().items()}
        given = keras.Input(x.shape[1:], dtype=x.dtype.name)
        model, made = keras.Model(given, _run(program, named, given)), list(named.values())
    for layer in made:
        for variable in layer.weights:
            variable.assign(_native(layer, variable, program.seed))
        layer.trainable = layer.name not in program.frozen
    return model, x


def learning(model: keras.Model) -> set[tuple[str, bool]]:
    """Return which layers have variables that are trained, and which have frozen ones."""
    return {(layer.name, variable.trainable) for layer in model.layers for variable in layer.weights}


def _native(layer: layers.Layer, variable, seed: int) -> np.ndarray:
    """Return a variable's numbers, drawn in the canonical shape and laid out as Keras stores them."""
    shape = tuple(variable.shape)
    if variable.name in ("matrix", "vector", "table"):
        return numbers(layer.name, shape, seed)
    if isinstance(layer, (layers.RNN, layers.Bidirectional, layers.MultiHeadAttention, layers.GroupQueryAttention, Encoder)):
        return numbers(variable.path, shape, seed)
    if isinstance(layer, layers.Embedding):
        return numbers(f"{layer.name}.weight", shape, seed)
    path = f"{layer.name}.{NATIVE.get(variable.name, variable.name)}"
    if len(shape) == 1:
        return numbers(path, shape, seed)
    *kernel, second, last = shape
    like = layer.step.op if isinstance(layer, Held) else ""
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)) or (like and _depthwise(layer.step, layer.read)):
        canonical = numbers(path, (second * last, 1, *kernel), seed)
        return np.moveaxis(canonical.reshape(second, last, *kernel), (0, 1), (-2, -1))
    if isinstance(layer, (layers.Conv2DTranspose, layers.Conv3DTranspose)) or like == "transposed":
        return np.moveaxis(numbers(path, (second, last, *kernel), seed), (0, 1), (-2, -1))
    return np.moveaxis(numbers(path, (last, second, *kernel), seed), (0, 1), (-1, -2))
