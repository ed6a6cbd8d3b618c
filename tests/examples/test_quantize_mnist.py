"""The example of quantisation keeps its promises on MNIST."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_quantised_digits_are_read_as_well_as_float_ones(framework):
    import quantize_mnist

    rows = {row.name: row for row in quantize_mnist.measure(framework)}

    exact = rows["float"].accuracy
    assert rows["ptq int8"].exported >= exact - 0.2
    assert rows["qat int8"].exported >= exact - 0.1
    assert rows["qat int4 weights"].exported >= exact - 0.5
    assert all(row.same >= 99 and row.close >= 99 for row in rows.values() if row.same is not None)
