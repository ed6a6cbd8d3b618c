"""Linear layers whose input has no grid: weights of few bits with float inputs, or inputs quantised at run time.

    weight-only    4 bits in blocks of inputs, two in a byte    MatMulNBits: a float product that reads less memory
    dynamic        8 bits, the input's range found in each call    DynamicQuantizeLinear, MatMulInteger

A convolution has no fast kernel for either: ONNX Runtime's ConvInteger is 4 to 14 times slower than float.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, TensorProto

from nnc.graph.ir import Array
from nnc.grid import Grid
from nnc_onnx.draft import Draft
from nnc_onnx.levels import Weight
from nnc_onnx.tidy import CONTRIB


def matmul_few_bits(draft: Draft, node: NodeProto, source: Array, grid: Grid) -> tuple[str, str]:
    """Let a linear layer's weight be stored as 4 bits in blocks of inputs, and return its name; or why it cannot."""
    if node.op_type not in ("MatMul", "Gemm"):
        return "", f"only linear layers take weights of {grid.bits} bits with float inputs, and this is a {node.op_type}"
    size = grid.block or _whole(source.shape[1])
    if grid.bits != 4 or grid.axis not in (None, 0) or size & (size - 1) or size < 16:
        return (
            "",
            f"weights alone are stored as 4 bits in blocks of 16, 32, 64, 128, ... inputs, not as {grid.bits} bits, block {grid.block}",
        )
    offset = 8 if grid.signed else 0
    rows, columns = source.shape
    levels, blocks = grid.quantise(source) + offset, -(-columns // size)
    scale, zero = (
        np.broadcast_to(array.reshape(rows if array.ndim else 1, -1), (rows, blocks)) for array in (grid.scale, grid.zero_point + offset)
    )
    padded = np.pad(levels, ((0, 0), (0, blocks * size - columns)), constant_values=8)
    padded = padded.astype(np.uint8).reshape(rows, blocks, size)
    packed = padded[..., 0::2] | (padded[..., 1::2] << 4)
    stored = draft.new_constant(f"{node.input[1]}.int4", packed)
    inputs = [node.input[0], stored, draft.new_constant(f"{node.input[1]}.scale", scale.reshape(-1))]
    if (zero != 8).any():
        inputs.append(draft.new_constant(f"{node.input[1]}.zero", _nibbles(zero.astype(np.uint8))))
    sizes = {"K": columns, "N": rows, "bits": 4, "block_size": size}
    _with_bias(draft, node, lambda result: draft.add("MatMulNBits", inputs, result, node, domain=CONTRIB, **sizes))
    return stored, ""


def _for_blocks(array: Array, rows: int, blocks: int) -> Array:
    """Spread a scalar, or one number for each channel, over all blocks."""
    return np.broadcast_to(array.reshape(rows if array.ndim else 1, -1), (rows, blocks))


def _whole(inputs: int) -> int:
    """Return the smallest block that takes all inputs of a channel."""
    return max(16, 1 << (inputs - 1).bit_length())


def _nibbles(zero: Array) -> Array:
    """Pack zero points `(rows, blocks)` two in a byte, each row filled up to whole bytes."""
    even = np.pad(zero, ((0, 0), (0, zero.shape[1] % 2)))
    return np.asarray(even[:, 0::2] | (even[:, 1::2] << 4)).reshape(-1)


def matmul_dynamic(draft: Draft, node: NodeProto, weight: Weight) -> tuple[str, str]:
    """Let a linear layer find the range of its input in every call, and return its name; or why it cannot."""
    if node.op_type not in ("MatMul", "Gemm"):
        return "", f"a {node.op_type} with a range found at run time is several times slower than float"
    name = node.input[1]
    quantised, scale, zero = (draft.new_tensor(f"{node.output[0]}/{part}") for part in ("levels", "scale", "zero"))
    found = draft.add("DynamicQuantizeLinear", [node.input[0]], quantised, node)
    found.output.extend([scale, zero])
    levels = draft.new_constant(f"{name}.int8", np.ascontiguousarray(weight.levels.T))
    zeros = draft.new_constant(f"{name}.zero", weight.zero)
    scales = draft.new_constant(f"{name}.scale", weight.scale)
    total, numbers, step = (draft.new_tensor(f"{node.output[0]}/{part}") for part in ("total", "float", "step"))
    draft.add("MatMulInteger", [quantised, levels, zero, zeros], total, node)
    draft.add("Cast", [total], numbers, node, to=TensorProto.FLOAT)
    draft.add("Mul", [scale, scales], step, node)
    _with_bias(draft, node, lambda result: draft.add("Mul", [numbers, step], result, node))
    return levels, ""


def _with_bias(draft: Draft, node: NodeProto, make: Callable[[str], object]) -> None:
    """Put what `make(result)` adds in the place of a MatMul, or of a Gemm, whose bias is then added behind it."""
    draft.remove(node)
    if len(node.input) < 3:
        make(node.output[0])
        return
    inner = draft.new_tensor(f"{node.output[0]}/unbiased")
    make(inner)
    draft.add("Add", [inner, node.input[2]], node.output[0], node)
