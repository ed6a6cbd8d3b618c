"""Ranges move, and biases are corrected, only where that does what it says: the float model, or the mean of its output, stays."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import ConfigError
from tests.algorithms.quantization_networks import NETWORKS

DRAW = np.random.default_rng(0)
ROWS = DRAW.standard_normal((16, 6)).astype("f4") + 3
IMAGES = np.abs(DRAW.standard_normal((4, 4, 10, 10))).astype("f4") + np.arange(1, 5, dtype="f4").reshape(1, 4, 1, 1)
LAST = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))


class Between(nn.Module):
    """Two linear layers with a function between them."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, 6), nn.Linear(6, 3), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


class Normed(nn.Module):
    """A LayerNorm that the linear layer behind it is not alone to read: it runs twice, or is an output itself."""

    def __init__(self, twice):
        super().__init__()
        self.n, self.a, self.b, self.twice = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 3), twice

    def forward(self, x):
        first = self.n(x)
        return self.b(self.n(self.a(first))) if self.twice else (self.b(self.a(first)), first)


def normed(twice):
    given, norm, last = keras.Input((6,)), keras.layers.LayerNormalization(), keras.layers.Dense(3)
    first = norm(given)
    return keras.Model(given, last(norm(keras.layers.Dense(6)(first))) if twice else [last(first), first])


def compress(model, x, **options):
    return nnc.compress(model, [{"algorithm": "ptq", "quant_types": ["weight"], "quant_bits": 4, **options}], example_inputs=x)


def mean_error(name, model, x, **options):
    """Return the largest difference of a channel's mean output from the float model's."""
    network, channels = NETWORKS[name], 1 if name == "torch" and x.ndim > 2 else -1
    x = network.tensor(x)
    axes = tuple(axis for axis in range(x.ndim) if axis != channels % x.ndim)
    before = network.run(model, x)
    compressed = compress(model, x, **options)
    after = network.run(model, x)
    compressed.unwrap()
    return np.abs((after - before).mean(axis=axes)).max()


@pytest.mark.parametrize("function", [lambda y: torch.clamp(y, 0, 20), nn.Hardshrink(0.2)], ids=["clamp", "hardshrink"])
def test_a_function_that_is_clipped_far_out_or_near_zero_lets_no_range_pass(function):
    with pytest.raises(ConfigError, match="equalise: the entry's layers hold no place"):
        compress(Between(function), torch.from_numpy(ROWS), equalise=True)


@pytest.mark.parametrize("twice", [True, False], ids=["runs twice", "is an output"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_norm_that_others_read_too_is_not_smoothed(name, twice):
    model = Normed(twice) if name == "torch" else normed(twice)

    with pytest.raises(ConfigError, match="smooth: the entry's layers hold no place"):
        compress(model, NETWORKS[name].tensor(ROWS), smooth=0.5)


@pytest.mark.parametrize("observer", ["mse", "percentile"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_bias_makes_up_for_the_grid_that_the_observer_of_weights_found(name, observer):
    model = NETWORKS[name].dense([DRAW.standard_normal((5, 6)).astype("f4")])

    assert mean_error(name, model, ROWS, observer={"weight": observer}, bias_correction=True) < 1e-5


TRANSPOSED = {
    "torch": lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)),
    "keras": lambda: keras.Sequential([keras.Input((10, 10, 4)), keras.layers.Conv2DTranspose(6, 2, strides=2)]),
}
ALONG_ONE = {
    "torch": lambda: nn.Sequential(nn.Conv1d(4, 6, 1)),
    "keras": lambda: keras.Sequential([keras.Input((10, 4)), keras.layers.Conv1D(6, 1)]),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_bias_of_a_transposed_convolution_is_corrected_by_what_each_place_gets(name):
    x = IMAGES if name == "torch" else LAST

    assert mean_error(name, TRANSPOSED[name](), x, bias_correction=True) < 1e-5


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_bias_of_a_convolution_along_one_axis_is_corrected(name):
    x = IMAGES[..., 0] if name == "torch" else LAST[:, :, 0]

    assert mean_error(name, ALONG_ONE[name](), x, bias_correction=True) < 1e-5


def test_a_correction_of_biases_that_no_layer_has_is_refused():
    separable = keras.Sequential([keras.Input((10, 10, 4)), keras.layers.SeparableConv2D(6, 1)])

    for model, x in [(nn.Sequential(nn.Linear(6, 2, bias=False)), torch.from_numpy(ROWS)), (separable, LAST)]:
        with pytest.raises(ConfigError, match="bias_correction: the entry's layers hold no place for it, which is a layer that has a bias"):
            compress(model, x, bias_correction=True)


@pytest.mark.parametrize("option", [{"rounding": "gptq"}, {"bias_correction": True}], ids=["rounding", "bias_correction"])
def test_an_option_of_rounded_weights_is_refused_where_none_are_rounded(option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))}: it is about rounded weights, and the entry quantises \\['input'\\]"):
        compress(Between(torch.relu), torch.from_numpy(ROWS), quant_types=["input"], **option)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_unwrapping_takes_the_grids_off_the_small_model_too(name, tmp_path):
    network = NETWORKS[name]
    model, x = network.dense([DRAW.standard_normal((8, 6)).astype("f4"), DRAW.standard_normal((3, 8)).astype("f4")]), network.tensor(ROWS)
    config = [{"algorithm": "l1_norm", "op_names": ["fc1"], "sparsity": 0.5}, {"algorithm": "ptq"}]
    compressed = nnc.compress(model, config, example_inputs=x)
    compressed.speedup()

    compressed.unwrap()

    assert nnc.export(compressed.model, tmp_path / "small.onnx", x).difference < 1e-5
