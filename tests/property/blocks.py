"""What a random network is put together from: one function for each connection that real networks have."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from tests.property.programs import Draw, Step, Value, Writer

Block = Callable[[Draw, Writer, int], int]
BLOCKS: list[tuple[str, Block]] = []


def fits(*kinds: str) -> Callable[[Block], Block]:
    """List a block under the kinds of values that it takes: image, volume, line, tokens, vector, any. Listed twice, it is drawn more."""

    def listed(block: Block) -> Block:
        BLOCKS.extend((kind, block) for kind in kinds)
        return block

    return listed


def _alike(draw: Draw, w: Writer, x: int) -> int:
    """Draw a value of the same shape, x itself among them, made before or after it."""
    value = w.values[x]
    return draw(st.sampled_from([number for number in range(1, len(w.values)) if w.values[number] == value]))


def _channel_axis(w: Writer, x: int) -> int:
    value = w.values[x]
    return len(value.shape) - 1 if value.kind == "plain" else 1


def _divisor(draw: Draw, size: int) -> int:
    return draw(st.sampled_from([number for number in range(1, size + 1) if size % number == 0 and size // number > 1] or [1]))


def _project(w: Writer, x: int, out: int) -> int:
    return w.linear(x, out) if w.values[x].kind == "plain" else w.conv(x, out)


@fits("any")
def activation(draw: Draw, w: Writer, x: int) -> int:
    return w.act(x, draw(st.sampled_from(["relu", "sigmoid", "tanh", "gelu", "shifted"])))


@fits("any")
def layer(draw: Draw, w: Writer, x: int) -> int:
    out = draw(st.sampled_from([2, 4, 6, 8, 12]))
    if w.values[x].kind == "plain":
        return w.linear(x, out, draw(st.booleans()))
    return w.conv(x, out, draw(st.sampled_from([1, 3])), bias=draw(st.booleans()))


@fits("any")
def combined(draw: Draw, w: Writer, x: int) -> int:
    """A residual add, or a product, a difference, a maximum."""
    return w.pair(draw(st.sampled_from(["add", "add", "mul", "sub", "max"])), x, _alike(draw, w, x))


@fits("any")
def branch(draw: Draw, w: Writer, x: int) -> int:
    """A residual block: two layers beside a shortcut."""
    y = _project(w, w.act(_project(w, x, draw(st.sampled_from([2, 4, 6]))), "relu"), w.values[x].channels)
    return w.pair("add", y, x)


@fits("any")
def joined(draw: Draw, w: Writer, x: int) -> int:
    """DenseNet: what came before, and something new, side by side."""
    new = _project(w, x, draw(st.sampled_from([2, 3, 4]))) if draw(st.booleans()) else _alike(draw, w, x)
    return w.concat([x, new], _channel_axis(w, x)) if w.values[x].channels < 16 else x


@fits("any")
def gated(draw: Draw, w: Writer, x: int) -> int:
    """A gated linear unit: one layer, split into value and gate."""
    both = _project(w, x, 2 * draw(st.sampled_from([2, 4, 5])))
    parts = w.chunk(both, _channel_axis(w, both), 2)
    return w.pair("mul", parts, w.act(parts + 1, "sigmoid"))


@fits("any")
def parted(draw: Draw, w: Writer, x: int) -> int:
    """Split and put together in another order, one part changed."""
    axis, channels = _channel_axis(w, x), w.values[x].channels
    if channels % 2 or channels < 4:
        return x
    parts = w.chunk(x, axis, 2)
    return w.concat([w.act(parts + 1, "relu"), parts], axis)


@fits("any")
def sliced(draw: Draw, w: Writer, x: int) -> int:
    axis = draw(st.integers(1, len(w.values[x].shape) - 1))
    size = w.values[x].shape[axis]
    start = draw(st.integers(0, size - 1))
    return w.slice(x, axis, start, draw(st.integers(start + 1, size)), draw(st.sampled_from([1, 1, 2])))


@fits("any")
def gathered(draw: Draw, w: Writer, x: int) -> int:
    axis = draw(st.integers(1, len(w.values[x].shape) - 1))
    size = w.values[x].shape[axis]
    return w.gather(x, axis, tuple(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size))))


@fits("any")
def stacked(draw: Draw, w: Writer, x: int) -> int:
    return w.stack([x, _alike(draw, w, x)], draw(st.sampled_from(["sum", "mean"])))


@fits("any")
def repeated(draw: Draw, w: Writer, x: int) -> int:
    """A layer that is called twice: again on a value like the one that it read."""
    value = w.values[x]

    def fits_again(step: Step, read: Value) -> bool:
        same = (read.kind, read.channels, len(read.shape)) == (value.kind, value.channels, len(value.shape))
        return same and step.op in ("linear", "conv") and step.attrs.get("padded", True)

    fitting = [name for name, (step, read) in w.layers.items() if fits_again(step, read)]
    return w.again(x, draw(st.sampled_from(fitting))) if fitting else x


@fits("any")
def multiplied(draw: Draw, w: Writer, x: int) -> int:
    return w.scaled(x)


@fits("image", "volume", "line")
def normalised(draw: Draw, w: Writer, x: int) -> int:
    return w.norm(x, "batch_norm")


@fits("image", "volume")
def group_normalised(draw: Draw, w: Writer, x: int) -> int:
    return w.norm(x, "group_norm", groups=_divisor(draw, w.values[x].channels))


@fits("image", "volume", "line")
def depthwise(draw: Draw, w: Writer, x: int) -> int:
    """With or without a multiplier; Keras has a layer of its own for it, but for volumes."""
    channels = w.values[x].channels
    return w.conv(x, channels * draw(st.integers(1, 2)), 3, groups=channels, bias=draw(st.booleans()))


@fits("image", "volume", "line")
def grouped(draw: Draw, w: Writer, x: int) -> int:
    groups = _divisor(draw, w.values[x].channels)
    return w.conv(x, groups * draw(st.integers(1, 3)), 3, groups=groups) if groups < w.values[x].channels else x


@fits("image", "volume", "line")
def inverted(draw: Draw, w: Writer, x: int) -> int:
    """MobileNet's block: expand, depthwise, project, add."""
    wide = w.act(w.norm(w.conv(x, 6, bias=False), "batch_norm"), "relu")
    wide = w.act(w.norm(w.conv(wide, 6, 3, groups=6, bias=False), "batch_norm"), "relu")
    return w.pair("add", w.norm(w.conv(wide, w.values[x].channels, bias=False), "batch_norm"), x)


@fits("image", "volume")
def transposed(draw: Draw, w: Writer, x: int) -> int:
    return w.transposed(x, draw(st.sampled_from([2, 4])))


@fits("image", "volume", "line")
def shuffled(draw: Draw, w: Writer, x: int) -> int:
    return w.shuffle(x, _divisor(draw, w.values[x].channels))


@fits("image", "volume")
def excited(draw: Draw, w: Writer, x: int) -> int:
    """Squeeze and excite."""
    y = w.act(w.conv(w.mean(x, tuple(range(2, len(w.values[x].shape))), keep=True), draw(st.sampled_from([2, 4]))), "relu")
    return w.pair("mul", x, w.act(w.conv(y, w.values[x].channels), "sigmoid"))


@fits("image", "volume")
def pooled(draw: Draw, w: Writer, x: int) -> int:
    if min(w.values[x].shape[2:]) < 2:
        return x
    return w.spatial("pool", x, 0.5, function=draw(st.sampled_from(["max", "average"])))


@fits("image")
def enlarged(draw: Draw, w: Writer, x: int) -> int:
    if draw(st.booleans()) or w.values[x].channels % 4:
        return w.spatial("resize", x, 2)
    return w.spatial("pixels", x, 2)


@fits("image", "volume", "line")
def padded(draw: Draw, w: Writer, x: int) -> int:
    y = w.pad(x)
    return w.conv(y, draw(st.sampled_from([2, 4])), 3, padded=False) if min(w.values[y].shape[2:]) > 2 else y


@fits("image", "volume", "line")
def tokenised(draw: Draw, w: Writer, x: int) -> int:
    return w.tokens(x)


@fits("tokens")
def layer_normalised(draw: Draw, w: Writer, x: int) -> int:
    return w.norm(x, "layer_norm")


@fits("tokens")
def mixed(draw: Draw, w: Writer, x: int) -> int:
    """MLP-Mixer: a layer over the tokens."""
    length = w.values[x].shape[1]
    y = w.linear(w.act(w.linear(w.transpose(x, (0, 2, 1)), 6), "gelu"), length)
    return w.pair("add", x, w.transpose(y, (0, 2, 1)))


@fits("tokens", "vector")
def bare(draw: Draw, w: Writer, x: int) -> int:
    return w.bare(x, draw(st.sampled_from([2, 4, 6])), draw(st.sampled_from(["matmul", "einsum"])))


@fits("tokens")
def selected(draw: Draw, w: Writer, x: int) -> int:
    return w.select(x, 1, draw(st.integers(0, w.values[x].shape[1] - 1)))


@fits("tokens")
def summed(draw: Draw, w: Writer, x: int) -> int:
    return w.mean(x, (draw(st.sampled_from([1, 1, 2])),), function=draw(st.sampled_from(["sum", "mean"])))


@fits("tokens")
def attended(draw: Draw, w: Writer, x: int) -> int:
    """Attention: heads from three projections or one, in front of a residual add; then a feed-forward part or not."""
    heads, size, width = draw(st.sampled_from([2, 3])), draw(st.sampled_from([2, 4])), w.values[x].channels
    normed = w.norm(x, "layer_norm") if draw(st.booleans()) else x
    if draw(st.booleans()):
        first = w.chunk(w.linear(normed, 3 * heads * size), 2, 3)
        parts = [first, first + 1, first + 2]
    else:
        parts = [w.linear(normed, heads * size) for _ in range(3)]
    query, key, value = (w.heads(part, size) for part in parts)
    scores = w.matmul(query, key, turned=True)
    scores = w.act(w.relative(scores) if draw(st.booleans()) else scores, "softmax")
    x = w.pair("add", w.linear(w.merged(w.matmul(scores, value)), width), x)
    return w.pair("add", w.linear(w.act(w.linear(x, 6), "gelu"), width), x) if draw(st.booleans()) else x


@fits("tokens", "tokens", "tokens")
def attending(draw: Draw, w: Writer, x: int) -> int:
    """Self-attention or cross-attention in one layer, as frameworks have it; several heads of queries may share one of keys and values."""
    width, shared = w.values[x].channels, draw(st.sampled_from([1, 1, 2]))
    heads = _divisor(draw, width) if shared == 1 else shared * draw(st.integers(1, 2))
    size = width // heads if shared == 1 else draw(st.sampled_from([2, 4]))
    source = draw(st.one_of(st.just(x), st.sampled_from(_tokens(w))))
    flags = {name: draw(st.booleans()) for name in ("bias", "causal", "first", "weights")}
    y = w.attention(x, source, heads, size, shared=shared, **flags)
    return w.pair("add", x, y) if draw(st.booleans()) else y


def _tokens(w: Writer) -> list[int]:
    return [number for number in range(1, len(w.values)) if w.values[number].kind == "plain" and len(w.values[number].shape) == 3]


@fits("tokens", "tokens", "tokens")
def encoded(draw: Draw, w: Writer, x: int) -> int:
    """A transformer's encoder layer."""
    flags = {name: draw(st.booleans()) for name in ("early", "bias", "first")}
    function, inner = draw(st.sampled_from(["relu", "gelu"])), draw(st.sampled_from([4, 6]))
    return w.encoder(x, _divisor(draw, w.values[x].channels), inner, function=function, **flags)


@fits("tokens")
def recurring(draw: Draw, w: Writer, x: int) -> int:
    return w.recurrent(x, draw(st.sampled_from(["LSTM", "GRU", "RNN"])), draw(st.sampled_from([2, 3, 4])), draw(st.booleans()))


@fits("tokens")
def tied(draw: Draw, w: Writer, x: int) -> int:
    """Tokens against the rows of the table that they may come from."""
    width = w.values[x].channels
    tables = [name for name, (step, _) in w.layers.items() if step.op == "embedding" and step.attrs["width"] == width]
    return w.tied(x, tables[0]) if tables else x


@fits("tokens")
def placed(draw: Draw, w: Writer, x: int) -> int:
    return w.placed(x)


@fits("image", "volume", "line", "tokens")
def spread(draw: Draw, w: Writer, x: int) -> int:
    """A broadcast add: what a layer makes of the mean over all positions."""
    axes = (1,) if w.values[x].kind == "plain" else tuple(range(2, len(w.values[x].shape)))
    y = _project(w, w.mean(x, axes, keep=True), w.values[x].channels)
    return w.pair("add", x, y)
