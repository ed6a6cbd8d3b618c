"""The table of all operations that nnc reads: ONNX's name -> how to read it. Any other is "unknown" and pins what it touches."""

from __future__ import annotations

from nnc_onnx import read_einsum, read_norms, read_numbers, read_products, read_recurrent, read_shapes
from nnc_onnx.read import Reading

READINGS: dict[str, Reading] = {
    **read_products.READINGS,
    **read_einsum.READINGS,
    **read_norms.READINGS,
    **read_recurrent.READINGS,
    **read_numbers.READINGS,
    **read_shapes.READINGS,
}
