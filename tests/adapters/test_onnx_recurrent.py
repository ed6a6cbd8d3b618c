"""A recurrent node of two directions holds both weights, and both biases, in one tensor each: each direction takes its own constants."""

import numpy as np
import onnx
import pytest

import nnc
from nnc.registry import adapter_for
from tests.property.onnx_builder import build
from tests.property.programs import Value, Writer


def program(cell, units=4):
    writer = Writer(Value("plain", (2, 3, 6)))
    x = writer.recurrent(writer.act(writer.linear(0, 6), "sigmoid"), cell, units, both=True)
    writer.linear(writer.mean(x, (1,)), 3)
    return writer.program("rows", 3)


def without_rows(*rows):
    keep = np.ones((6, 6), bool)
    keep[list(rows)] = False
    return {"fc0": {"weight": keep}}


@pytest.mark.parametrize("cell", ["LSTM", "RNN", "GRU"])
def test_a_constant_that_both_directions_read_goes_into_both_biases(cell):
    model, inputs = build(program(cell))

    speedup = nnc.ModelSpeedup(model, inputs, without_rows(1, 4))
    small = speedup.speedup_model()

    assert speedup.plan.groups[0].members[0].removed == (1, 4)
    assert speedup.plan.kept == ()
    assert speedup.difference <= 1e-6
    onnx.checker.check_model(small, full_check=True)


def test_each_direction_weighs_the_constants_by_its_own_rows():
    # The bias of the masked rows stays: they are sigmoid(bias) at every step.
    model, inputs = build(program("RNN"))
    before = adapter_for(model).tensors()

    small = nnc.ModelSpeedup(model, inputs, without_rows(1, 4)).speedup_model()

    constants = 1 / (1 + np.exp(-before["fc0.bias"][[1, 4]].astype(float)))
    (name,) = (path for path in before if path.endswith("bias") and path.startswith("rnn"))
    (weight,) = (path for path in before if path.endswith("weight") and path.startswith("rnn") and "recurrent" not in path)
    added = adapter_for(small).tensors()[name] - before[name]  # (directions, 2 * units)
    expected = before[weight].reshape(2, 4, 6)[:, :, [1, 4]] @ constants
    np.testing.assert_allclose(added[:, :4], expected, atol=1e-6)
    np.testing.assert_array_equal(added[:, 4:], 0)
