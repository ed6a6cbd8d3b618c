"""Random small networks as programs: a list of steps that each framework's builder turns into a model of its own.

A value is an image (N, C, H, W), a volume (N, C, D, H, W), a line (N, C, L), plain (whatever lies as it is written: tokens (N, T, C),
vectors (N, C), heads), or indices (N, T) into a table. The builders may store images, volumes and lines with the channels last; a program
never sees that. A `Program` prints as Python, so that one that failed can be kept as an explicit test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from hypothesis import strategies as st

BATCH = 2
Shape = tuple[int, ...]
Draw = Callable[[Any], Any]


@dataclass(frozen=True)
class Value:
    """What is known of a value: how it lies ("image", "volume", "line" or "plain") and its shape."""

    kind: str
    shape: Shape

    @property
    def channels(self) -> int:
        return self.shape[-1] if self.kind == "plain" else self.shape[1]


@dataclass(frozen=True)
class Step:
    """One operation on earlier values, given by their numbers. `layer` names the parameters; a layer may stand in several steps."""

    op: str
    inputs: tuple[int, ...]
    results: tuple[Value, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    layer: str = ""

    def __hash__(self) -> int:
        return hash((self.op, self.inputs, self.layer))


@dataclass(frozen=True)
class Program:
    """A network: the input's value is number 0, each step gives one more (`chunk` several); the last one is the output.

    `masking` says how its layers are masked (see masking.py), `seed` with which random numbers; `frozen` layers are not to be trained.
    Of `held` layers code of the user's holds the parameters and calls a function, of `loose` ones the network itself does. A file knows
    nothing of all that.
    """

    given: Value
    steps: tuple[Step, ...]
    masking: str = "joint"
    seed: int = 0
    frozen: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def values(self) -> list[Value]:
        return [self.given, *(value for step in self.steps for value in step.results)]

    def used(self) -> tuple[int, ...]:
        """Return the numbers of the steps whose results reach the output."""
        first = [1]
        for step in self.steps:
            first.append(first[-1] + len(step.results))
        read, found = {len(self.values) - 1}, []
        for number in reversed(range(len(self.steps))):
            if not read.isdisjoint(range(first[number], first[number + 1])):
                read.update(self.steps[number].inputs)
                found.append(number)
        return tuple(reversed(found))

    def layers(self) -> dict[str, tuple[Step, Value]]:
        """Return the first step of each layer, and the value that it reads."""
        values, found = self.values, {}
        for step in self.steps:
            if step.layer:
                found.setdefault(step.layer, (step, values[step.inputs[0]]))
        return found

    def modules(self) -> set[str]:
        """Return the layers that are one in every framework: not what the network itself, or nothing but a step, holds."""
        return {name for name, (step, _) in self.layers().items() if step.op not in LOOSE and name not in self.loose}


@dataclass
class Writer:
    """Writes a program step by step; each method gives the number of the value that it makes."""

    given: Value
    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    layers: dict[str, tuple[Step, Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values.append(self.given)

    def add(self, op: str, inputs: Sequence[int], *results: Value, layer: str = "", **attrs: Any) -> int:
        step = Step(op, tuple(inputs), results, attrs, layer)
        self.steps.append(step)
        if layer:
            self.layers.setdefault(layer, (step, self.values[inputs[0]]))
        self.values.extend(results)
        return len(self.values) - len(results)

    def fresh(self, kind: str) -> str:
        return f"{kind}{len(self.layers)}"

    # -- layers -------------------------------------------------------------------------------------------------------

    def conv(self, x: int, out: int, kernel: int = 1, groups: int = 1, bias: bool = True, padded: bool = True) -> int:
        value = self.values[x]
        sides = value.shape[2:] if padded else tuple(side - kernel + 1 for side in value.shape[2:])
        attrs = {"out": out, "kernel": kernel, "groups": groups, "bias": bias, "padded": padded}
        return self.add("conv", [x], Value(value.kind, (BATCH, out, *sides)), layer=self.fresh("conv"), **attrs)

    def transposed(self, x: int, out: int) -> int:
        value = self.values[x]
        result = Value(value.kind, (BATCH, out, *(2 * side for side in value.shape[2:])))
        return self.add("transposed", [x], result, layer=self.fresh("up"), out=out)

    def linear(self, x: int, out: int, bias: bool = True) -> int:
        value = self.values[x]
        return self.add("linear", [x], Value("plain", (*value.shape[:-1], out)), layer=self.fresh("fc"), out=out, bias=bias)

    def norm(self, x: int, op: str, **attrs: Any) -> int:
        return self.add(op, [x], self.values[x], layer=self.fresh("norm"), **attrs)

    def recurrent(self, x: int, cell: str, units: int, both: bool) -> int:
        """An LSTM, GRU or RNN over tokens, forwards or `both` ways; Keras resets a GRU's state before or after the product."""
        *front, _ = self.values[x].shape
        result = Value("plain", (*front, units * (1 + both)))
        return self.add("recurrent", [x], result, layer=self.fresh("rnn"), cell=cell, units=units, both=both)

    def embedding(self, x: int, rows: int, width: int) -> int:
        return self.add("embedding", [x], Value("plain", (*self.values[x].shape, width)), layer=self.fresh("table"), rows=rows, width=width)

    def tied(self, x: int, table: str) -> int:
        """The product of tokens with a table that an embedding holds."""
        step, _ = self.layers[table]
        return self.add("tied", [x], Value("plain", (*self.values[x].shape[:-1], step.attrs["rows"])), table=table)

    def placed(self, x: int) -> int:
        """Tokens plus a table of positions, which no layer holds."""
        return self.add("placed", [x], self.values[x], layer=self.fresh("places"))

    def relative(self, x: int) -> int:
        """Scores (N, heads, T, T) plus rows of a table (2 T - 1, heads), chosen by how far query and key lie apart."""
        return self.add("relative", [x], self.values[x], layer=self.fresh("apart"))

    def attention(self, x: int, source: int, heads: int, size: int, **attrs: Any) -> int:
        """Tokens that attend to others, or to themselves: an attention with its projections as one layer, which keeps the width.

        `shared` query heads read one head of the keys and values.
        """
        attrs = {"heads": heads, "size": size, "source": self.values[source].channels, **attrs}
        return self.add("attention", [x, source], self.values[x], layer=self.fresh("attn"), **attrs)

    def encoder(self, x: int, heads: int, inner: int, **attrs: Any) -> int:
        """A transformer's encoder layer, which norms before attention and feed-forward part (`early`) or after."""
        return self.add("encoder", [x], self.values[x], layer=self.fresh("block"), heads=heads, inner=inner, **attrs)

    def again(self, x: int, layer: str) -> int:
        """Call a layer at a second place."""
        step, _ = self.layers[layer]
        value = self.values[x]
        shape = (*value.shape[:-1], step.attrs["out"]) if step.op == "linear" else (BATCH, step.attrs["out"], *value.shape[2:])
        return self.add(step.op, [x], Value(value.kind, shape), layer=layer, **step.attrs)

    # -- numbers ------------------------------------------------------------------------------------------------------

    def act(self, x: int, function: str) -> int:
        return self.add("act", [x], self.values[x], function=function)

    def pair(self, op: str, a: int, b: int) -> int:
        return self.add(op, [a, b], self.values[a])

    def mean(self, x: int, axes: tuple[int, ...], keep: bool = False, function: str = "mean") -> int:
        value = self.values[x]
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape) if keep or axis not in axes)
        return self.add("reduce", [x], Value(value.kind if keep else "plain", shape), axes=axes, keep=keep, function=function)

    def matmul(self, a: int, b: int, turned: bool = False) -> int:
        rows, columns = self.values[a].shape, self.values[b].shape
        return self.add("matmul", [a, b], Value("plain", (*rows[:-1], columns[-2] if turned else columns[-1])), turned=turned)

    def bare(self, x: int, out: int, how: str) -> int:
        """A product with a parameter that no layer holds, by matmul or by einsum."""
        value = self.values[x]
        return self.add("bare", [x], Value("plain", (*value.shape[:-1], out)), layer=self.fresh("bare"), out=out, how=how)

    def scaled(self, x: int) -> int:
        """x times a vector that no layer holds."""
        return self.add("scaled", [x], self.values[x], layer=self.fresh("scale"), first=self.values[x].kind != "plain")

    # -- moves --------------------------------------------------------------------------------------------------------

    def transpose(self, x: int, order: tuple[int, ...]) -> int:
        shape = self.values[x].shape
        return self.add("transpose", [x], Value("plain", tuple(shape[axis] for axis in order)), order=order)

    def flatten(self, x: int, order: str) -> int:
        """All but the batch in one axis; `order` says whether an image's channels come first or last."""
        return self.add(
            "flatten", [x], Value("plain", (BATCH, prod(self.values[x].shape[1:]))), order=order, first=self.values[x].kind != "plain"
        )

    def tokens(self, x: int) -> int:
        """An image's, or a line's, positions as tokens."""
        _, channels, *sides = self.values[x].shape
        return self.add("tokens", [x], Value("plain", (BATCH, prod(sides), channels)))

    def concat(self, values: Sequence[int], axis: int) -> int:
        shapes = [self.values[x].shape for x in values]
        joined = sum(shape[axis] for shape in shapes)
        shape = (*shapes[0][:axis], joined, *shapes[0][axis + 1 :])
        return self.add("concat", values, Value(self.values[values[0]].kind, shape), axis=axis)

    def chunk(self, x: int, axis: int, count: int) -> int:
        value = self.values[x]
        part = Value(value.kind, (*value.shape[:axis], value.shape[axis] // count, *value.shape[axis + 1 :]))
        return self.add("chunk", [x], *[part] * count, axis=axis, count=count)

    def slice(self, x: int, axis: int, start: int, stop: int, step: int) -> int:
        value = self.values[x]
        size = len(range(value.shape[axis])[start:stop:step])
        result = Value(value.kind, (*value.shape[:axis], size, *value.shape[axis + 1 :]))
        return self.add("slice", [x], result, axis=axis, start=start, stop=stop, step=step)

    def gather(self, x: int, axis: int, index: tuple[int, ...]) -> int:
        value = self.values[x]
        result = Value(value.kind, (*value.shape[:axis], len(index), *value.shape[axis + 1 :]))
        return self.add("gather", [x], result, axis=axis, index=index)

    def select(self, x: int, axis: int, index: int) -> int:
        shape = self.values[x].shape
        return self.add("select", [x], Value("plain", (*shape[:axis], *shape[axis + 1 :])), axis=axis, index=index)

    def stack(self, values: Sequence[int], function: str) -> int:
        """Values side by side on an axis of their own, summed or averaged over it."""
        return self.add("stack", values, self.values[values[0]], function=function)

    def heads(self, x: int, size: int) -> int:
        """Tokens (N, T, C) as heads (N, heads, T, size)."""
        _, length, width = self.values[x].shape
        return self.add("heads", [x], Value("plain", (BATCH, width // size, length, size)), size=size)

    def merged(self, x: int) -> int:
        _, heads, length, size = self.values[x].shape
        return self.add("merged", [x], Value("plain", (BATCH, length, heads * size)))

    def spatial(self, op: str, x: int, factor: float, **attrs: Any) -> int:
        """A pool, a resize or a pixel shuffle: positions change by a factor."""
        value = self.values[x]
        channels = value.shape[1] // 4 if op == "pixels" else value.shape[1]
        shape = (BATCH, channels, *(int(side * factor) for side in value.shape[2:]))
        return self.add(op, [x], Value(value.kind, shape), **attrs)

    def pad(self, x: int) -> int:
        value = self.values[x]
        return self.add("pad", [x], Value(value.kind, (*value.shape[:2], *(side + 2 for side in value.shape[2:]))))

    def shuffle(self, x: int, groups: int) -> int:
        return self.add("shuffle", [x], self.values[x], groups=groups)

    def program(self, masking: str, seed: int, frozen: Sequence[str] = (), held: Sequence[str] = (), loose: Sequence[str] = ()) -> Program:
        return Program(self.given, tuple(self.steps), masking, seed, tuple(frozen), tuple(held), tuple(loose))


INPUTS = (
    Value("image", (BATCH, 3, 4, 4)),
    Value("volume", (BATCH, 3, 2, 3, 2)),
    Value("line", (BATCH, 3, 6)),
    Value("plain", (BATCH, 3, 6)),
    Value("plain", (BATCH, 5)),
    Value("indices", (BATCH, 5)),
)
ROWS = 7
MASKINGS = ("joint", "rows", "mixed")
#: Steps on parameters that no module holds.
LOOSE = ("bare", "scaled", "placed", "relative")
#: Layers that are one function of their parameters.
FUNCTIONS = ("conv", "transposed", "linear", "batch_norm", "group_norm", "layer_norm")


@st.composite
def programs(draw: Draw) -> Program:
    """Draw a program of up to seven blocks that ends in a linear layer."""
    from tests.property.blocks import BLOCKS

    writer = Writer(draw(st.sampled_from(INPUTS)))
    last = _first(draw, writer)
    for _ in range(draw(st.integers(1, 7))):
        recent = [number for number in range(1, len(writer.values)) if prod(writer.values[number].shape) <= 1024]
        x = draw(st.one_of(st.just(last), st.sampled_from(recent))) if recent else last
        fitting = [block for kind, block in BLOCKS if kind in (_form(writer.values[x]), "any")]
        last = draw(st.sampled_from(fitting))(draw, writer, x)
    _finish(draw, writer, last)
    frozen = draw(st.lists(st.sampled_from(sorted(writer.layers)), max_size=3, unique=True))
    functions = [name for name, (step, _) in writer.layers.items() if step.op in FUNCTIONS]
    bare = draw(st.lists(st.sampled_from(functions), max_size=3, unique=True))
    own = draw(st.integers(0, len(bare)))
    return writer.program(draw(st.sampled_from(MASKINGS)), draw(st.integers(0, 999)), frozen, bare[:own], bare[own:])


def distances(length: int) -> list[list[int]]:
    """Return which row of a table of relative positions each query (row) and key (column) take."""
    return [[query - key + length - 1 for key in range(length)] for query in range(length)]


def _form(value: Value) -> str:
    """Return which blocks fit a value: those of images, volumes, lines, tokens or vectors."""
    if value.kind != "plain":
        return value.kind
    return {2: "vector", 3: "tokens"}.get(len(value.shape), "")


def _first(draw: Draw, writer: Writer) -> int:
    width = draw(st.sampled_from([4, 6, 8]))
    if writer.given.kind == "indices":
        return writer.embedding(0, ROWS, width)
    if writer.given.kind == "plain":
        return writer.linear(0, width)
    return writer.conv(0, width, kernel=draw(st.sampled_from([1, 3])))


def _finish(draw: Draw, writer: Writer, x: int) -> None:
    """Bring whatever there is to a vector and through a last linear layer."""
    value = writer.values[x]
    if value.kind != "plain":
        if draw(st.booleans()):
            x = writer.flatten(x, draw(st.sampled_from(["NCHW", "NHWC"])))
        else:
            x = writer.mean(x, tuple(range(2, len(value.shape))))
    elif len(value.shape) > 2:
        x = writer.flatten(x, "NCHW") if draw(st.booleans()) else writer.mean(x, tuple(range(1, len(value.shape) - 1)))
    writer.linear(x, 3)
