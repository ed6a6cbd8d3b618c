"""The table of all operations that nnc reads: TensorFlow's name -> how to read it. Any other is "unknown" and pins what it touches."""

from __future__ import annotations

from nnc_tensorflow import read_numbers, read_products, read_recurrent, read_shapes
from nnc_tensorflow.read import Reading

READINGS: dict[str, Reading] = {**read_products.READINGS, **read_recurrent.READINGS, **read_numbers.READINGS, **read_shapes.READINGS}
