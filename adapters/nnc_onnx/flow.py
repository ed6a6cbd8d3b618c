"""Which tensors of a graph are quantised, and on which grid: what ONNX Runtime needs on both sides of an integer kernel.

    Conv                   its input and its output (behind a ReLU, ReLU6) quantised    QLinearConv
    MatMul, Gemm           its input                                                    QGemm, MatMulIntegerToFloat
    Add, Concat, GlobalAveragePool, AveragePool    all inputs and the output            QLinearAdd, QLinearConcat, ...
    MaxPool, Reshape, Transpose, ...               hand the grid of their input on

A tensor that integer kernels make is on its grid for all who read it. One that is made in float is quantised for those who read it in
integers, once for each grid: q, k and v share theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from onnx import NodeProto

from nnc.grid import Grid
from nnc_onnx.draft import Draft, label
from nnc_onnx.levels import Bytes, in_bytes
from nnc_onnx.sites import behind_another_weight

#: Operations that only move numbers, or pick some of them.
MOVES = ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "DepthToSpace", "Identity")
#: Operations with integer kernels that hold no weight.
PLAIN = ("Add", "Concat", "GlobalAveragePool", "AveragePool")


@dataclass
class Flow:
    """The plan: `tensors` are quantised for all readers, `reads` for one input of one node; `reasons` tell why a layer is not.

    `shown` are inputs of layers that stay float: they are rounded to their grid, so that the file computes what was simulated.
    """

    draft: Draft
    made: Mapping[str, Grid]
    read: Mapping[tuple[str, str], Grid]
    tensors: dict[str, Bytes] = field(default_factory=dict)
    reads: dict[tuple[int, int], Bytes] = field(default_factory=dict)
    shown: dict[tuple[int, int], Bytes] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers = self.draft.readers()

    def plan(self, weighted: Mapping[int, str], grids: Mapping[str, Grid]) -> None:
        """`weighted` are the nodes that hold a quantised weight, by id; `grids` their layers' input grids."""
        nodes = [node for node in self.draft.nodes if id(node) in weighted]
        ready = {id(node) for node in nodes if self._take_input(node, weighted[id(node)], grids)}
        for node in nodes:
            if id(node) in ready:
                self._give_output(node, weighted[id(node)])
        self._spread()
        self._show({weighted[id(node)] for node in nodes if self.integer(node)})

    def integer(self, node: NodeProto) -> bool:
        """Whether a node that holds a weight is computed in integers."""
        return (id(node), 0) in self.reads and (node.op_type != "Conv" or self.behind(node) in self.tensors)

    def own(self, node: NodeProto) -> str:
        """Return what a node makes, the bias behind a MatMul included."""
        add = self.draft.only_reader(node.output[0], self.readers) if node.op_type == "MatMul" else None
        biased = add is not None and add.op_type == "Add" and any(self.draft.constant(name) is not None for name in add.input)
        return add.output[0] if add is not None and biased else node.output[0]

    def behind(self, node: NodeProto) -> str:
        """Return the tensor behind a node and the ReLU that it takes with it."""
        relu = self.draft.only_reader(self.own(node), self.readers)
        return relu.output[0] if relu is not None and top_of(self.draft, relu) is not None else self.own(node)

    def _take_input(self, node: NodeProto, layer: str, grids: Mapping[str, Grid]) -> bool:
        inside = behind_another_weight(self.draft, node, layer)
        grid = (None if inside else grids.get(layer)) or self._known(node.input[0], layer)
        if grid is None:
            between = "what it hands from one of its weights to the next has no grid"
            self.reasons[layer] = between if inside else f"{layer}.input has no grid"
            return False
        found = in_bytes(grid)
        if isinstance(found, str):
            self.reasons[layer] = f"{layer}.input: {found}"
            return False
        self.reads[id(node), 0] = found
        return True

    def _known(self, tensor: str, layer: str) -> Grid | None:
        """Return the grid of a tensor, past operations that only move numbers."""
        while True:
            if (layer, tensor) in self.read:
                return self.read[layer, tensor]
            if tensor in self.made:
                return self.made[tensor]
            maker = self.draft.maker.get(tensor)
            if maker is None or maker.op_type not in MOVES:
                return None
            tensor = maker.input[0]

    def _give_output(self, node: NodeProto, layer: str) -> None:
        """Quantise what a node makes, where a grid for it is known; a convolution needs one."""
        tensor = self.behind(node)
        found = self._grid_behind(self.own(node), tensor)
        if found is None and node.op_type == "Conv":
            self.reasons[layer] = f"neither {layer}.output nor what reads it has a grid"
            del self.reads[id(node), 0]
        elif found is not None:
            self.tensors[tensor] = found

    def _grid_behind(self, inner: str, outer: str) -> Bytes | None:
        """Return the grid of a tensor `inner` that a ReLU may follow: an output's own, else that with which it is read."""
        wanted = self._wanted(outer)
        top = top_of(self.draft, self.draft.maker[outer]) if inner != outer else None
        top = inf if top is None else top
        for tensor in (outer,) if inner == outer or wanted is not None else (outer, inner):
            found = in_bytes(self.made[tensor]) if tensor in self.made else None
            if isinstance(found, Bytes):
                return found.behind_relu(top) if inner != outer else found
        return wanted.behind_relu(top) if wanted is not None and inner != outer else wanted

    def _wanted(self, tensor: str) -> Bytes | None:
        """Return the grid with which a tensor is read by a kernel, past operations that only move or join numbers."""
        for node, place in self.readers.get(tensor, ()):
            if (id(node), place) in self.reads:
                return self.reads[id(node), place]
        for node, place in self.readers.get(tensor, ()):
            grid = self.read.get((label(node), tensor))
            found = in_bytes(grid) if grid is not None else None
            if isinstance(found, Bytes):
                return found
            if (place == 0 and node.op_type in MOVES) or node.op_type == "Concat":
                moved = self._wanted(node.output[0])
                if moved is not None:
                    return moved
        return self._moved_on(tensor)

    def _moved_on(self, tensor: str) -> Bytes | None:
        """Return the grid that a tensor has behind an operation which only moves it, where nothing else reads it."""
        node = self.draft.only_reader(tensor, self.readers)
        grid = self.made.get(node.output[0]) if node is not None and node.op_type in MOVES else None
        found = in_bytes(grid) if grid is not None else None
        return found if isinstance(found, Bytes) else None

    def _spread(self) -> None:
        """Let sums, means and moves work on bytes where all that they read does."""
        for node in self.draft.nodes:
            if node.op_type in MOVES and node.input[0] in self.tensors and self._wanted(node.output[0]) is not None:
                self.tensors.setdefault(node.output[0], self.tensors[node.input[0]].fine)
            elif node.op_type in PLAIN and all(name in self.tensors for name in node.input):
                tensor = self.behind(node)
                found = self._grid_behind(self.own(node), tensor)
                if found is not None:
                    self.tensors[tensor] = found

    def _show(self, integer: set[str]) -> None:
        """Note what layers other than these read on a grid."""
        for (layer, tensor), grid in self.read.items():
            found = in_bytes(grid)
            for node, place in self.readers.get(tensor, ()) if layer not in integer else ():
                own = place >= 0 and (label(node) == layer or label(node).startswith(f"{layer}."))
                if own and isinstance(found, Bytes) and (id(node), place) not in self.reads:
                    self.shown[id(node), place] = found


def top_of(draft: Draft, node: NodeProto) -> float | None:
    """Return the largest number that a ReLU lets pass, infinity for a plain one, or None for another operation."""
    if node.op_type == "Relu":
        return inf
    if node.op_type != "Clip" or len(node.input) < 2 or draft.scalar(node.input[1]) != 0:
        return None
    return draft.scalar(node.input[2]) if len(node.input) > 2 and node.input[2] else inf
