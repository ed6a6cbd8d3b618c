"""Layers that do not run in inference stay in float, with a warning; the rest is quantised."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import ConfigError, LeftAlone


class TorchBranches(nn.Module):
    """A second head, `side`, for training only; its name begins another's that runs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.side_free, self.side = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        x = self.body(x).relu()
        return (self.side_free(x), self.side(x)) if self.training else self.side_free(x)


@keras.saving.register_keras_serializable("nnc-tests")
class KerasBranches(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        keras.utils.set_random_seed(0)
        self.body = keras.layers.Dense(16, activation="relu", name="body")
        self.side_free, self.side = (keras.layers.Dense(4, name=name) for name in ("side_free", "side"))

    def build(self, shape):
        self.body.build(shape)
        for layer in (self.side_free, self.side):
            layer.build((shape[0], 16))
        self.built = True

    def call(self, x, training=False):
        x = self.body(x)
        return (self.side_free(x), self.side(x)) if training else self.side_free(x)


def torch_case():
    return TorchBranches().eval(), torch.from_numpy(numbers())


def keras_case():
    model = KerasBranches()
    model(numbers())
    return model, numbers()


def numbers():
    return np.random.default_rng(0).standard_normal((6, 8)).astype("float32")


@pytest.fixture(params=[torch_case, keras_case], ids=["torch", "keras"])
def case(request):
    return request.param()


@pytest.mark.parametrize("algorithm", ["ptq", "qat_ste"])
def test_what_does_not_run_stays_in_float_with_a_warning(case, algorithm, tmp_path):
    model, x = case
    with pytest.warns(LeftAlone, match="side did not run on the example inputs, and stays in float"):
        c = nnc.compress(model, [{"algorithm": algorithm}], example_inputs=x)

    result = c.export(tmp_path / "model.onnx", force=True)

    assert {placed.layer for placed in result.placed if placed.kernel != "float"} == {"body", "side_free"}
    assert result.difference < 0.02


def test_an_entry_of_which_nothing_runs_is_refused(case):
    model, x = case

    with pytest.raises(ConfigError, match=r"side did not run on the example inputs.*nothing else is selected"):
        nnc.compress(model, [{"algorithm": "ptq", "op_names": ["side"]}], example_inputs=x)
