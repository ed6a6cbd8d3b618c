"""Find queries, keys and values in a traced graph, so that attention scores can be recomputed while fused kernels stay on.

    softmax(q k^T) v    two products of activations with a softmax between them

From each factor the way back leads through reshapes, transposes and slices to the layer that made it. What these did is followed with
numbered entries: so it is known which feature of the layer's output is which entry of which head, whether one layer makes q, k and v
together or keys are shared by several heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nnc.graph.ir import Array, Graph, Node, Tensor
from nnc.views import Site
from nnc_distillation.sources import Source


@dataclass(frozen=True)
class Attention:
    """One self-attention: where its queries, keys and values are seen, each `(batch, length, heads * d)`, and its heads."""

    layer: str
    query: Source
    key: Source
    value: Source
    heads: int
    #: Features of queries, keys and values.
    widths: tuple[int, int, int]

    @property
    def sources(self) -> tuple[Source, Source, Source]:
        return self.query, self.key, self.value


@dataclass(frozen=True)
class Opaque:
    """An attention whose queries, keys or values are no layer's output; `reason` names the operation in the way."""

    layer: str
    reason: str


class _InTheWayError(Exception):
    """The way back from a product meets what changes numbers."""


def attentions(graph: Graph) -> list[Attention | Opaque]:
    """Return every attention of a forward pass, in its order."""
    makers = {tensor: node for node in graph.nodes for tensor in node.outputs}
    return [found for node in graph.nodes if node.kind == "matmul" for found in _attention(node, makers)]


def _attention(outer: Node, makers: Mapping[Tensor, Node]) -> Iterator[Attention | Opaque]:
    for place in (0, 1):
        found = _scores_behind(outer.inputs[place], makers)
        if found is None:
            continue
        inner, exchanged = found
        (query, key), value = ((1, 0) if exchanged else (0, 1)), 1 - place
        try:
            # Rows of tokens: of q k^T the left factor as it is, the right one turned; of (weights) v the right one as it is.
            factors = ((inner, query, query == 1), (inner, key, key == 1), (outer, value, value == 0))
            q, k, v = (_features(node, at, turned, makers) for node, at, turned in factors)
            heads = {len(columns) for _, columns in (q, k, v)}
            if len(heads) > 1:
                raise _InTheWayError(f"queries, keys and values have {sorted(heads)} heads")
        except _InTheWayError as reason:
            yield Opaque(outer.layer, str(reason))
            return
        widths = (q[1].size, k[1].size, v[1].size)
        yield Attention(outer.layer, _source(*q), _source(*k), _source(*v), len(q[1]), widths)
        return


def _scores_behind(x: Tensor | None, makers: Mapping[Tensor, Node]) -> tuple[Node, bool] | None:
    """Return the product that a softmax before `x` is taken of, and whether it is turned in between (keys times queries)."""
    waiting = [(x, False, False)]
    while waiting:
        tensor, softened, turned = waiting.pop()
        node = makers.get(tensor) if tensor is not None else None
        if node is None:
            continue
        if node.kind == "matmul":
            if softened:
                return node, turned
        elif node.kind in ("identity", "reshape", "expand"):
            waiting.append((node.inputs[0], softened, turned))
        elif node.kind == "transpose":
            order, rank = node.attrs["permutation"], len(node.attrs["permutation"])
            waiting.append((node.inputs[0], softened, turned ^ (softened and tuple(order[-2:]) == (rank - 1, rank - 2))))
        elif node.kind == "along" and not softened and tuple(node.attrs["axes"]) == (len(node.outputs[0].shape) - 1,):
            waiting.append((node.inputs[0], True, turned))
        elif node.kind == "binary":
            # A scale or a mask: the scores have the shape of the result.
            waiting += [(given, softened, turned) for given in node.inputs if given is not None and given.shape == node.outputs[0].shape]
    return None


def _features(product: Node, place: int, turned: bool, makers: Mapping[Tensor, Node]) -> tuple[tuple[Site, int], Array]:
    """Return where a factor of a product is seen (the site, its number of features), and its features by head, `(heads, d)`."""
    path: list[Node] = []
    tensor = product.inputs[place]
    while True:
        node = makers.get(tensor) if tensor is not None else None
        if node is None:
            raise _InTheWayError("an input of the model stands where a layer's output is expected")
        if node.kind == "linear":
            break
        tensor = _before(node, product)
        path.append(node)
    seen, rest = node.outputs[0], path[::-1]
    while rest and rest[0].layer == node.layer:
        seen, rest = rest[0].outputs[0], rest[1:]
    if node.layer in ("", product.layer) or any(step.layer == node.layer for step in rest):
        raise _InTheWayError(f"they do not leave a layer of their own: {node.place} is within {product.layer or 'the model'}")
    if any(step.kind == "binary" and not _is_scale(step) for step in rest):
        raise _InTheWayError("something is added to them behind their layer")
    if len(seen.shape) < 3:
        raise _InTheWayError(f"{node.layer} gives {seen.shape}, not (batch, length, features)")
    columns = _columns(seen.shape, rest, turned)
    return (Site(node.layer), int(np.prod(seen.shape[2:]))), columns


def _before(node: Node, product: Node) -> Tensor | None:
    """Return what a node moved about without changing its numbers."""
    if node.kind in _MOVES or (node.kind == "concat" and len(node.inputs) == 1):
        return node.inputs[0]
    if node.kind == "along" and node.op == product.op:
        return node.inputs[0]  # within one fused operation this only says that the scale counts the width
    if node.kind == "binary" and any(_is_constant(given) for given in node.inputs):
        return next(given for given in node.inputs if not _is_constant(given))
    raise _InTheWayError(f"{node.place} changes them")


def _is_constant(given: Tensor | None) -> bool:
    return given is not None and (given.role == "parameter" or (given.role == "constant" and given.shape == ()))


def _is_scale(node: Node) -> bool:
    return node.attrs.get("function") in ("mul", "div")


#: What only moves numbers, on arrays.
_MOVES: Mapping[str, Callable[[Array, Node], Array]] = {
    "identity": lambda x, node: x,
    "reshape": lambda x, node: x.reshape(node.outputs[0].shape),
    "transpose": lambda x, node: x.transpose(node.attrs["permutation"]),
    "expand": lambda x, node: np.broadcast_to(x, node.outputs[0].shape),
    "repeat": lambda x, node: np.tile(x, node.attrs["counts"]),
    "slice": lambda x, node: np.take(x, node.attrs["index"], node.attrs["axis"]),
    "select": lambda x, node: np.take(x, node.attrs["index"], node.attrs["axis"]),
}


def _columns(shape: tuple[int, ...], path: list[Node], turned: bool) -> Array:
    """Return which feature of a layer's output `(batch, length, ...)` each entry of each head is, `(heads, d)`."""
    batch, length, width = shape[0], shape[1], int(np.prod(shape[2:]))
    numbers = np.arange(batch * length * width).reshape(shape)
    for node in path:
        move = _MOVES.get(node.kind)
        numbers = move(numbers, node) if move else numbers
    numbers = numbers.swapaxes(-1, -2) if turned else numbers
    if numbers.shape[-2] != length or numbers.size % (batch * length):
        raise _InTheWayError(f"{shape} becomes {numbers.shape}, which is no longer one row for each token")
    numbers = numbers.reshape(batch, -1, length, numbers.shape[-1])  # (batch, heads, length, d)
    token = np.arange(batch)[:, None] * length + np.arange(length)
    columns = numbers[0, :, 0, :] % width
    if (numbers // width != token[:, None, :, None]).any() or (numbers % width != columns[None, :, None, :]).any():
        raise _InTheWayError("tokens or samples are mixed on the way to the product")
    return columns


def _source(seen: tuple[Site, int], columns: Array) -> Source:
    site, width = seen
    flat = columns.reshape(-1)
    whole = len(flat) == width and bool((flat == np.arange(width)).all())
    return Source(site, None if whole else tuple(int(number) for number in flat), tokens=True)
