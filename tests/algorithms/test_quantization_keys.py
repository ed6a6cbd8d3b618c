"""What the keys of an entry mean, tensor by tensor, and that none is accepted and ignored; on both frameworks."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.recipe import spec_of
from nnc.registry import adapter_for
from nnc.views import Site
from nnc_schemas import parse_config_list
from tests.algorithms.quantization_networks import NETWORKS


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def two_layers(network):
    """Return layers fc1, 8 x 12, and fc2, 4 x 8, with an input for them."""
    draw = np.random.default_rng(0)
    model = network.dense([draw.standard_normal((8, 12)).astype("f4"), draw.standard_normal((4, 8)).astype("f4")])
    return model, network.tensor(draw.standard_normal((6, 12)))


class Tied(nn.Module):
    """An embedding whose table is the last layer's weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.table(tokens)))


@pytest.mark.parametrize("algorithm", ["ptq", "qat_ste"])
def test_a_tied_weight_has_a_grid_at_each_of_its_layers(algorithm, tmp_path):
    model = Tied()
    compressed = nnc.compress(model, [{"algorithm": algorithm}], torch.arange(6)[None])

    grids = compressed.quantizers[0].grids()
    written = compressed.export(tmp_path / "tied.onnx", force=True)
    compressed.unwrap()

    assert grids[Site("head", "weight")].scale == pytest.approx(model.head.weight.detach().abs().amax(1).numpy() / 127)
    assert Site("table", "weight") in grids
    assert written.difference < 0.01


def test_each_entry_has_learning_rates_of_its_own(network):
    """Adam's first step is the rate: fc1's scales move by 1e-4 of themselves, fc2's by a tenth."""
    model, x = two_layers(network)
    entries = [
        {"algorithm": "qat_lsq", "op_names": [name], "lr_weight": rate, "lr_input": rate} for name, rate in (("fc1", 1e-4), ("fc2", 0.1))
    ]
    trainer = network.trainer([(x, network.labels(6))])
    compressed = nnc.compress(model, entries, x, trainer=trainer)
    before = compressed.quantizers[0].grids()

    compressed.train(steps=1)

    after = compressed.quantizers[0].grids()
    moved = {str(site): float(np.max(np.abs(grid.scale / before[site].scale - 1))) for site, grid in after.items()}
    expected = {"fc1.weight": 1e-4, "fc1.input": 1e-4, "fc2.weight": 0.1, "fc2.input": 0.1}
    assert moved == pytest.approx(expected, rel=0.01)


def grids_of(network, algorithm="ptq", model=None, x=None, **keys):
    if model is None:
        model, x = two_layers(network)
    return nnc.compress(model, [{"algorithm": algorithm, **keys}], x).quantizers[0].grids()


def bits_of(network, algorithm="ptq", **keys):
    return {str(site): grid.bits for site, grid in grids_of(network, algorithm, **keys).items()}


def refused(network, algorithm="ptq", model=None, x=None, **keys):
    """Return what an entry is told, and check that nothing was touched."""
    if model is None:
        model, x = two_layers(network)
    with pytest.raises(ConfigError) as found:
        nnc.compress(model, [{"algorithm": algorithm, **keys}], x)
    assert not adapter_for(model).views()
    return str(found.value)


@pytest.mark.parametrize("dtype", ["int4", "uint4", {"weight": "int4", "input": "uint4"}, {"weight": "int4", "input": "int4"}])
def test_a_type_of_whole_numbers_says_the_bits(network, dtype):
    assert set(bits_of(network, quant_dtype=dtype).values()) == {4}


def test_a_type_without_a_number_leaves_the_bits_open(network):
    assert set(bits_of(network, quant_dtype="int", quant_bits=5).values()) == {5}
    assert bits_of(network, quant_dtype={"weight": "int4"}, op_names=["fc1"]) == {"fc1.weight": 4, "fc1.input": 8}


@pytest.mark.parametrize(("dtype", "told"), [("it8", "nearest: 'int8'"), ("float8", "float8"), ("int16", "int16"), (8, "8 is no type")])
def test_another_type_is_refused(network, dtype, told):
    message = refused(network, quant_dtype=dtype)

    assert message.startswith("config_list[0].quant_dtype: ")
    assert told in message


def test_a_type_and_bits_that_differ_are_refused(network):
    assert "'int4' of weight has not the 8 bits of quant_bits" in refused(network, quant_dtype="int4", quant_bits=8)


def test_target_names_and_granularity_are_words_of_nni_3(network):
    grids = grids_of(network, target_names=["weight"], quant_dtype="int4", granularity="per_tensor")

    assert {str(site): (grid.bits, grid.axis) for site, grid in grids.items()} == {"fc1.weight": (4, None), "fc2.weight": (4, None)}
    assert all(grid.axis == 0 for grid in grids_of(network, target_names=["weight"], granularity="out_channel").values())
    one = grids_of(network, target_settings={"weight": {"granularity": "per_tensor"}}, op_names=["fc1"])
    assert one[Site("fc1", "weight")].axis is None


def test_what_nni_3_has_and_integer_kernels_have_not_is_refused(network):
    assert "granularity: 'in_channel' is none of default, per_tensor, out_channel" in refused(network, granularity="in_channel")
    assert "'per_channel_affine' of input: integer kernels take one scale" in refused(network, granularity="out_channel")
    assert "target_names: ['weight'] are not quant_types" in refused(network, target_names=["weight"], quant_types=["input"])


@pytest.mark.parametrize(
    "settings",
    [{"quant_bits": {"output": 6}}, {"target_settings": {"_output_": {"quant_dtype": "int6"}}}, {"quant_dtype": {"_output_": "uint6"}}],
)
def test_an_entry_that_names_no_tensors_quantises_what_it_has_settings_of_beside_weight_and_input(network, settings):
    assert bits_of(network, op_names=["fc1"], **settings) == {"fc1.weight": 8, "fc1.input": 8, "fc1.output": 6}


@pytest.mark.parametrize("word", ["quant_types", "target_names"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("quant_bits", {"weight": 4, "output": 8}), ("target_settings", {"_output_": {}}), ("observer", {"output": "minmax"})],
)
def test_settings_of_a_tensor_that_is_left_alone_are_refused(network, word, key, value):
    message = refused(network, **{word: ["weight"], key: value})

    assert message == f"config_list[0]: {key}: it sets output, which {word}, ['weight'], leaves alone; name it there, or leave it out."


@pytest.mark.parametrize("entry", [{}, {"target_names": ["weight"]}, {"quant_bits": {"output": 4}}, {"quant_types": ["input"]}])
def test_an_entry_that_was_written_down_is_read_as_it_was(entry):
    (spec,) = parse_config_list([{"algorithm": "ptq", **entry}], spec_of=spec_of)

    (again,) = parse_config_list([spec.model_dump(exclude_none=True)], spec_of=spec_of)

    assert (again.tensors, again.bits("output")) == (spec.tensors, spec.bits("output"))


@pytest.mark.parametrize("given", ["fc1", ["fc1"], {"op_names": ["fc1"]}, {"op_names_re": "fc1"}, {"op_partial_names": ["c1"]}])
def test_int4_layers_are_parts_of_names_or_a_selector(network, given):
    assert bits_of(network, quant_types=["weight"], int4_layers=given) == {"fc1.weight": 4, "fc2.weight": 8}


def test_int4_layers_by_type_are_all_of_the_type(network):
    assert bits_of(network, quant_types=["weight"], int4_layers={"op_types": ["Linear"]}) == {"fc1.weight": 4, "fc2.weight": 4}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("fc3", "config_list[0].int4_layers: 'fc3' matches none of the entry's layers; nearest: 'fc"),
        ("11_12", "'11' matches none of the entry's layers"),
        ("fc1_", "'fc1_' matches none of the entry's layers; nearest: 'fc1'"),
        ("", "config_list[0].int4_layers: '' names no layers"),
        (["fc1", ""], "names no layers"),
        ({"op_names": ["fc3"]}, "config_list[0].int4_layers.op_names: 'fc3' matches no layer; nearest: 'fc"),
        ({"op_type": ["Linear"]}, "'op_type' selects no layers; nearest: 'op_types'"),
        ({}, "the selector is empty"),
        ({"op_names": 3}, "op_names: 3 is not a list of names"),
    ],
)
def test_int4_layers_that_match_nothing_are_refused(network, given, told):
    assert told in refused(network, int4_layers=given)


def test_an_excluded_layer_may_stay_among_the_int4_layers(network):
    model, x = two_layers(network)
    entries = [{"algorithm": "ptq", "int4_layers": ["fc1", "fc2"]}, {"exclude": True, "op_names": ["fc1"]}]

    assert nnc.compress(model, entries, x).quantizers[0].grids()[Site("fc2", "weight")].bits == 4


@pytest.mark.parametrize("types", [["bias"], ["weight", "bias"], ["input", "bias"]])
def test_a_bias_is_quantised_with_the_weight_and_the_input_that_make_its_grid(network, types):
    assert "a bias is a whole number on the grid of weight times input; name weight and input" in refused(network, quant_types=types)
    assert len(grids_of(network, quant_types=["weight", "input", "bias"])) == 4


@pytest.mark.parametrize("algorithm", ["ptq", "qat_ste", "qat_pact"])
def test_inputs_of_a_weight_share_scales_in_groups(network, algorithm):
    model, x = two_layers(network)
    group = {"quant_types": ["weight"], "quant_scheme": "per_group_symmetric", "group_size": 4, "quant_bits": 4}
    trainer = network.trainer([(x, network.labels(6))])
    compressed = nnc.compress(model, [{"algorithm": algorithm, **group}], x, trainer=trainer)

    grids = compressed.quantizers[0].grids()
    for layer in adapter_for(model).layers():
        on_grid = grids[Site(layer.name, "weight")](to_numpy(layer.stored("weight")))
        assert to_numpy(layer.seen("weight")) == pytest.approx(on_grid, abs=1e-6)
    if algorithm != "ptq":
        assert np.isfinite(compressed.train(steps=2).losses).all()

    assert {str(site): (grid.block, grid.scale.shape) for site, grid in grids.items()} == {
        "fc1.weight": (4, (8, 3)),
        "fc2.weight": (4, (4, 2)),
    }


@pytest.mark.parametrize("algorithm", ["qat_lsq", "qat_lsq_plus", "qat_dorefa", "qat_bnn"])
def test_an_algorithm_without_groups_refuses_them(network, algorithm):
    told = refused(network, algorithm, quant_scheme={"weight": "per_group_symmetric"})

    assert f"config_list[0].quant_scheme: per_group_symmetric: '{algorithm}' has no scale for each group" in told


@pytest.mark.parametrize("algorithm", ["ptq", "qat_ste"])
def test_a_convolution_has_no_groups(network, algorithm):
    told = refused(network, algorithm, network.small(), network.images(4), quant_scheme={"weight": "per_group_symmetric"})

    assert "per_group_symmetric: 'c1' is a Conv2d, whose weight has 4 axes; groups are inputs of a linear layer" in told


@pytest.mark.parametrize("algorithm", ["qat_bnn", "qat_dorefa"])
def test_one_bit_is_for_weights(network, algorithm):
    assert "config_list[0].quant_bits: one bit is for weights; the input has 2 to 8" in refused(network, algorithm, quant_bits=1)
    assert bits_of(network, algorithm, quant_bits={"weight": 1, "input": 8}, op_names=["fc1"]) == {"fc1.weight": 2, "fc1.input": 8}


@pytest.mark.parametrize("observer", ["channel_wise_abs_max", {"weight": "channel_wise_abs_max"}], ids=str)
def test_the_usual_observer_of_weights_has_paddles_name(network, observer):
    named, usual = grids_of(network, observer=observer), grids_of(network)

    assert all(grid.same(usual[site]) for site, grid in named.items())


def test_a_plain_observer_is_of_activations_or_of_weights_alone(network):
    both, usual = grids_of(network, observer="mse", quant_bits=3), grids_of(network, quant_bits=3)
    alone = grids_of(network, observer="mse", quant_bits=3, quant_types=["weight"])

    weight, given = Site("fc1", "weight"), Site("fc1", "input")
    assert both[weight].same(usual[weight])
    assert not both[given].same(usual[given])
    assert (alone[weight].scale < usual[weight].scale).any()


@pytest.mark.parametrize(
    ("algorithm", "keys", "told"),
    [
        ("ptq", {"observer": {"input": "channel_wise_abs_max"}}, "'channel_wise_abs_max' is for weights"),
        ("ptq", {"observer": {"weight": "mes"}}, "config_list[0].observer: 'mes' is no observer; nearest: 'mse'"),
        ("qat_ste", {"observer": {"weight": "mse"}}, "'mse' of weights: 'qat_ste' has grids that follow the weights"),
        ("ptq", {"observer": {"weight": "mse"}, "rounding": "gptq"}, "'mse' of weights: 'gptq' takes the largest |w|"),
        (
            "ptq",
            {"observer": {"weight": "channel_wise_abs_max"}, "quant_scheme": {"weight": "per_tensor_symmetric"}},
            "quant_scheme says per_tensor_symmetric",
        ),
    ],
)
def test_an_observer_that_a_tensor_has_no_use_for_is_refused(network, algorithm, keys, told):
    assert told in refused(network, algorithm, **keys)


def test_calibration_on_no_batch_is_refused_by_its_own_name(network):
    told = refused(network, calib_steps=0)

    assert told == "config_list[0].calib_steps: 0 is not a whole number above 0; it is how many batches are looked at."


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named_before_anything_is_measured(network, bad):
    weight = np.ones((8, 12), np.float32)
    weight[2, 3] = bad
    model = network.dense([weight, np.ones((4, 8), np.float32)])

    told = refused(network, "ptq", model, network.tensor(np.ones((2, 12))))

    assert told == "fc1.weight: 1 of 96 numbers are NaN or infinite, and no grid holds them."


def test_dorefa_leaves_a_weight_that_is_zero_everywhere_finite(network):
    model, x = network.dense([np.zeros((4, 6), np.float32)]), network.tensor(np.ones((2, 6)))
    nnc.compress(model, [{"algorithm": "qat_dorefa"}], x)

    assert network.run(model, x) == pytest.approx(np.full((2, 4), 0.1), abs=0.02)


def test_an_embedding_bag_is_given_indices_that_stay():
    model = nn.Sequential(nn.EmbeddingBag(10, 6), nn.Linear(6, 4))
    tokens = torch.arange(6)[None]

    compressed = nnc.compress(model, [{"algorithm": "ptq"}], tokens)

    assert {str(site) for site in compressed.quantizers[0].grids()} == {"0.weight", "1.weight", "1.input"}
    assert torch.isfinite(model(tokens)).all()
