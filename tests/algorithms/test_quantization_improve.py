"""What post-training quantisation does to weights lowers the error that it is for, and is undone by unwrap()."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.grid import Grid
from nnc.registry import adapter_for
from nnc_quantization.rounding import adaround, gptq, output_error
from tests.algorithms.quantization_networks import NETWORKS

DRAW = np.random.default_rng(0)
#: Inputs that go together: three directions, and some noise.
ROWS = (DRAW.standard_normal((256, 3)) @ DRAW.standard_normal((3, 16)) + 0.1 * DRAW.standard_normal((256, 16)) + 0.5).astype("f4")
WEIGHT = DRAW.standard_normal((8, 16)).astype("f4")
SECOND = DRAW.standard_normal((4, 8)).astype("f4")


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def error(network, build, rows=ROWS, **options):
    """Return the mean squared error of the model's output with the options, and whether unwrap() gave every weight back."""
    model, x = build(), network.tensor(rows)
    before = {name: array.copy() for name, array in adapter_for(model).tensors().items()}
    truth = network.run(model, x)
    entry = {"algorithm": "ptq", "quant_types": ["weight"], "quant_bits": 4, **options}
    compressed = nnc.compress(model, [entry], example_inputs=x)
    found = float(((network.run(model, x) - truth) ** 2).mean())
    compressed.unwrap()
    after = adapter_for(model).tensors()
    assert all(np.array_equal(array, after[name]) for name, array in before.items())
    return found


@pytest.mark.parametrize("method", [gptq, adaround])
def test_rounding_by_the_inputs_loses_less_of_the_output_than_to_the_nearest(method):
    moments = ROWS.T.astype(np.float64) @ ROWS / len(ROWS)
    grid = Grid.around_zero(WEIGHT, 4, 0)
    scale = grid.scale[:, None].astype(np.float64)

    rounded = method(WEIGHT, moments, scale, 7)

    assert np.allclose(rounded / scale, np.rint(rounded / scale))
    assert np.abs(rounded / scale).max() <= 7 + 1e-6
    assert output_error(WEIGHT, rounded, moments) < 0.5 * output_error(WEIGHT, grid(WEIGHT), moments)


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_a_rounding_lowers_the_error_of_the_model(network, rounding):
    def build():
        return network.dense([WEIGHT])

    assert error(network, build, rounding=rounding) < 0.5 * error(network, build)


def test_bias_correction_takes_the_mean_error_away(network):
    """Inputs whose mean is far from zero: what rounding takes is nearly the same for all samples."""
    rows = (10 + 0.1 * np.random.default_rng(1).standard_normal((64, 16))).astype("f4")

    def build():
        return network.dense([WEIGHT])

    assert error(network, build, rows, bias_correction=True) < 0.01 * error(network, build, rows)


def test_equalising_helps_where_one_channel_is_a_hundred_times_the_others(network):
    first, second = WEIGHT.copy(), SECOND.copy()
    first[0] *= 100
    second[:, 0] /= 100

    def build():
        return network.dense([first, second])

    scheme = {"quant_scheme": "per_tensor_symmetric", "quant_bits": 8}
    assert error(network, build, equalise=True, **scheme) < 0.1 * error(network, build, **scheme)


def test_smoothing_helps_where_one_input_channel_is_an_outlier(network):
    norm = np.ones(16, np.float32)
    norm[3] = 200.0
    weight = WEIGHT.copy()
    weight[:, 3] /= 200

    def build():
        return network.dense([weight], norm)

    options = {"quant_types": ["weight", "input"], "quant_bits": 8}
    assert error(network, build, smooth=0.5, **options) < 0.2 * error(network, build, **options)


def test_two_methods_together_are_better_than_one(network):
    def build():
        return network.dense([WEIGHT, SECOND])

    both = error(network, build, rounding="gptq", bias_correction=True)
    assert both <= error(network, build, bias_correction=True)


def test_a_rounding_of_a_convolution_is_refused_by_name(network):
    with pytest.raises(ConfigError, match=r"config_list\[0\].rounding: 'gptq': 'c1' is Conv2d; only linear layers"):
        nnc.compress(network.small(), [{"algorithm": "ptq", "rounding": "gptq"}], example_inputs=network.images(4))


@pytest.mark.parametrize(("option", "place"), [({"equalise": True}, "two of its layers"), ({"smooth": 0.5}, "a LayerNorm")])
def test_an_option_without_a_place_is_refused(network, option, place):
    with pytest.raises(ConfigError, match=f"the entry's layers hold no place for it, which is {place}"):
        nnc.compress(network.dense([WEIGHT]), [{"algorithm": "ptq", **option}], example_inputs=network.tensor(ROWS))


def test_the_file_holds_the_rounded_weights(network, tmp_path):
    model, x = network.dense([WEIGHT, SECOND]), network.tensor(ROWS)
    compressed = nnc.compress(model, [{"algorithm": "ptq", "quant_bits": {"weight": 4, "input": 8}, "rounding": "gptq"}], example_inputs=x)

    assert compressed.export(tmp_path / "model.onnx", force=True).difference < 0.01
