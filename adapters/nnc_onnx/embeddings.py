"""An embedding's table in int8: the rows are looked up as bytes, and only what was looked up becomes float."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto

from nnc.grid import Grid
from nnc_onnx.draft import Draft


def embed(draft: Draft, node: NodeProto, grid: Grid) -> tuple[str, str]:
    """Let a Gather look rows up in an int8 table, and return its name, or why it does not. `grid` is that of the table `(rows, width)`."""
    table = draft.constant(node.input[0])
    if table is None or grid.bits > 8 or grid.block:
        return "", f"{grid.bits} bits, block {grid.block} is no grid of a table of bytes"
    offset = 0 if grid.signed else 128
    name = draft.new_constant(f"{node.input[0]}.int8", (grid.quantise(table) - offset).astype(np.int8))
    result = node.output[0]
    rows = draft.new_tensor(f"{result}/levels")
    gathered = draft.add("Gather", [name, node.input[1]], rows, node)
    gathered.attribute.extend(node.attribute)
    draft.remove(node)
    zero = grid.zero_point - offset
    if grid.axis == 0:
        _by_row(draft, node, rows, grid, zero)
    else:
        scales = draft.new_constant(f"{name}/scale", grid.scale)
        zeros = draft.new_constant(f"{name}/zero", zero.astype(np.int8))
        axis = {"axis": -1} if grid.axis == 1 else {}
        draft.add("DequantizeLinear", [rows, scales, zeros], result, node, **axis)
    return name, ""


def _by_row(draft: Draft, node: NodeProto, rows: str, grid: Grid, zero: np.ndarray) -> None:
    """Each row has a scale, which is looked up beside it."""
    result = node.output[0]
    scales = draft.new_constant(f"{result}/scales", grid.scale.reshape(-1, 1))
    scale, numbers = draft.new_tensor(f"{result}/scale"), draft.new_tensor(f"{result}/float")
    draft.add("Gather", [scales, node.input[1]], scale, node)
    draft.add("Cast", [rows], numbers, node, to=TensorProto.FLOAT)
    if zero.any():
        zeros = draft.new_constant(f"{result}/zeros", zero.reshape(-1, 1).astype(np.float32))
        offset, moved = draft.new_tensor(f"{result}/zero"), draft.new_tensor(f"{result}/moved")
        draft.add("Gather", [zeros, node.input[1]], offset, node)
        draft.add("Sub", [numbers, offset], moved, node)
        numbers = moved
    draft.add("Mul", [numbers, scale], result, node)
