"""A model that magnifies rounding: no comparison in its own precision shows anything, and the error says so."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import SpeedupError
from nnc_pruning import L1NormPruner

MAGNIFIED = 1e6


class TorchNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.head = nn.Linear(64, 1000), nn.Linear(1000, 64), nn.Linear(64, 8)

    def forward(self, x):
        return self.head(torch.sin(MAGNIFIED * self.down(self.up(x).relu())))


def keras_net(dtype="float32"):
    keras.utils.set_random_seed(0)
    given = keras.Input((64,), dtype=dtype)
    x = keras.layers.Dense(64, dtype=dtype, name="down")(keras.layers.Dense(1000, "relu", dtype=dtype, name="up")(given))
    return keras.Model(given, keras.layers.Dense(8, dtype=dtype, name="head")(keras.ops.sin(MAGNIFIED * x)))


def speedup(model, x):
    return nnc.ModelSpeedup(model, x, L1NormPruner(model, [{"op_names": ["up"], "sparsity": 0.5}], example_inputs=x).propose())


def torch_case(dtype):
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    return TorchNet().to(getattr(torch, dtype)), x.to(getattr(torch, dtype))


def keras_case(dtype):
    return keras_net(dtype), np.random.default_rng(1).standard_normal((4, 64)).astype(dtype)


@pytest.mark.parametrize("case", [torch_case, keras_case], ids=["torch", "keras"])
def test_the_error_says_that_the_model_magnifies_rounding_and_what_to_do(case):
    with pytest.raises(SpeedupError, match=r"its inputs differ by 5e-07, its own outputs differ by .*Build it in float64"):
        speedup(*case("float32")).speedup_model()


@pytest.mark.parametrize("case", [torch_case, keras_case], ids=["torch", "keras"])
def test_the_remedy_works(case):
    found = speedup(*case("float64"))

    found.speedup_model()

    assert found.difference < 1e-6
    assert found.plan.groups
