"""The seven quantizers from config to file, on both frameworks, and one clear message for each wrong input."""

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, StorageError
from nnc.ranges import read_ranges, write_ranges
from nnc.registry import adapter_for
from nnc.views import Site
from tests.algorithms.quantization_networks import NETWORKS

NAMES = ["ptq", "qat_ste", "qat_lsq", "qat_lsq_plus", "qat_pact", "qat_dorefa", "qat_bnn"]
TRAINED = {"qat_lsq": "ratio", "qat_lsq_plus": "shift", "qat_pact": "ratio"}


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def batches(network, size=16):
    images, labels = network.images(), network.labels()
    return [(images[start : start + size], labels[start : start + size]) for start in range(0, len(labels), size)]


def compressed(network, entry, **options):
    trainer = network.trainer(batches(network))
    return nnc.compress(network.small(), [entry], example_inputs=network.images(4), trainer=trainer, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_quantised_model_trains_and_its_file_computes_the_same(network, name, tmp_path):
    c = compressed(network, {"algorithm": name})
    if name != "ptq":
        losses = c.train(epochs=2).losses
        assert np.isfinite(losses).all()

    result = c.export(tmp_path / "model.onnx", force=True)

    assert {"c1", "c2", "f1", "f2"} <= {placed.layer for placed in result.placed if placed.kernel != "float"}
    assert result.difference < 0.02


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_what_is_to_learn_moves_in_training(network, name):
    c = compressed(network, {"algorithm": name})
    first = adapter_for(c.model).numbers()
    c.train(epochs=1)
    last = adapter_for(c.model).numbers()

    key = TRAINED[name]
    assert any(not np.array_equal(first[site][key], last[site][key]) for site in first if key in first[site])


@pytest.mark.parametrize("name", NAMES)
def test_unwrap_gives_the_users_model_back(network, name):
    model = network.small()
    truth = network.run(model, network.images(4))
    c = nnc.compress(model, [{"algorithm": name}], example_inputs=network.images(4))
    assert not np.array_equal(network.run(model, network.images(4)), truth)

    assert np.array_equal(network.run(c.unwrap(), network.images(4)), truth)


def test_a_range_follows_the_batches_of_training_and_no_others(network):
    """Ten percent of what is new after ten steps of one percent: 1 - 0.99^10."""
    c = nnc.compress(network.small(), [{"algorithm": "qat_ste", "op_names": ["c1"]}], example_inputs=network.images(4) * 0)
    network.run(c.model, network.images())
    before = adapter_for(c.model).numbers()["c1.input", "quantise"]["high"]
    c.trainer = network.trainer([(network.images(), network.labels())])
    c.train(steps=10)

    after = adapter_for(c.model).numbers()["c1.input", "quantise"]["high"]
    largest = float(np.max(np.asarray(network.images())))
    assert before == 0
    assert float(after) == pytest.approx((1 - 0.99**10) * largest, rel=1e-4)


def test_ranges_are_measured_again_after_speedup_and_by_themselves(network):
    config = [{"algorithm": "l1_norm", "op_names": ["c1"], "sparsity": 0.5}, {"algorithm": "qat_ste", "observer": "minmax"}]
    c = nnc.compress(network.small(), config, network.images(4), trainer=network.trainer(batches(network)))
    c.train(steps=2)
    with pytest.raises(ConfigError, match=r"calibrate\(\): l1_norm is still on this model; call finish\(\) or speedup\(\) first"):
        c.calibrate()
    c.speedup()

    c.calibrate([3 * network.images()])

    numbers = adapter_for(c.model).numbers()["c1.input", "quantise"]
    images = 3 * np.asarray(network.images())
    assert (float(numbers["low"]), float(numbers["high"])) == pytest.approx((images.min(), images.max()), rel=1e-6)


@pytest.mark.parametrize("name", ["qat_lsq", "qat_lsq_plus"])
def test_learned_scales_of_channels_that_stay_are_still_theirs_after_speedup(network, name):
    config = [{"algorithm": "l1_norm", "op_names": ["c1"], "sparsity": 0.5}, {"algorithm": name, "quant_bits": {"weight": 4, "input": 8}}]
    c = nnc.compress(network.small(), config, network.images(4), trainer=network.trainer(batches(network)))
    c.train(epochs=1)
    stays = c.masks["c1"]["weight"].reshape(8, -1).any(axis=1)
    before = c.quantizers[0].grids()

    c.speedup()

    after = c.quantizers[0].grids()
    assert after[Site("c1", "weight")].scale.tolist() == pytest.approx(before[Site("c1", "weight")].scale[stays].tolist(), rel=1e-6)
    assert after[Site("f1", "weight")].scale.tolist() == pytest.approx(before[Site("f1", "weight")].scale.tolist(), rel=1e-6)


@pytest.mark.parametrize("name", ["ptq", "qat_lsq", "qat_lsq_plus", "qat_pact"])
@pytest.mark.parametrize("bits", [2, 8])
def test_grids_of_activations_are_the_same_after_speedup(network, name, bits):
    """A grid with zero in the middle has a level more below zero: levels -2 to 1 are a range of -s to s."""
    scheme = {"quant_scheme": {"input": "per_tensor_symmetric"}}
    config = [{"algorithm": "l1_norm", "op_names": ["c1"], "sparsity": 0.5}, {"algorithm": name, "quant_bits": {"input": bits}, **scheme}]
    c = nnc.compress(network.small(), config, network.images(4), trainer=network.trainer(batches(network)))
    before = c.quantizers[0].grids()

    c.speedup()

    after = c.quantizers[0].grids()
    inputs = [site for site in before if site.tensor == "input"]
    assert [float(after[site].scale) for site in inputs] == pytest.approx([float(before[site].scale) for site in inputs], rel=1e-6)
    assert [int(after[site].zero_point) for site in inputs] == [int(before[site].zero_point) for site in inputs]


def test_a_calibration_is_read_from_the_file_that_it_was_written_to(network, tmp_path):
    from nnc_quantization import PTQQuantizer

    model = network.small()
    first = PTQQuantizer(model, [{}], network.images(4))
    first.calibrate()
    first.save_calibration(tmp_path / "ranges.json")
    second = PTQQuantizer(model, [{}])
    second.load_calibration(tmp_path / "ranges.json")

    assert second.ranges == first.ranges
    assert len(second.ranges) == 4


TWO_QUANTIZERS = [{"algorithm": "ptq", "op_names": ["c1"]}, {"algorithm": "qat_lsq", "op_types": ["Linear"]}]


@pytest.mark.parametrize("config", [[{"algorithm": "ptq"}], TWO_QUANTIZERS], ids=["one", "two"])
def test_a_compressed_model_goes_on_the_grids_of_a_calibration_that_was_kept(network, config, tmp_path):
    model, images = network.small(), network.images(2) / 3
    first = nnc.compress(model, config, network.images(8))
    first.save_calibration(tmp_path / "ranges.json")
    wanted = [scales(one) for one in first.quantizers], to_numpy(adapter_for(model).run(images)[0])
    first.unwrap()
    second = nnc.compress(model, config, images)
    assert [scales(one) for one in second.quantizers] != wanted[0]

    second.load_calibration(tmp_path / "ranges.json")

    assert [scales(one) for one in second.quantizers] == wanted[0]
    np.testing.assert_array_equal(to_numpy(adapter_for(model).run(images)[0]), wanted[1])


def test_a_calibration_of_other_layers_changes_nothing(network, tmp_path):
    nnc.compress(network.small(), [{"algorithm": "ptq", "op_names": ["c1"]}], network.images(2)).save_calibration(tmp_path / "ranges.json")
    c = nnc.compress(network.small(), TWO_QUANTIZERS, network.images(8))
    before = [scales(one) for one in c.quantizers]

    with pytest.raises(ConfigError, match=r"ranges.json: holds no range of .*f1.*; it was measured on another model or config_list"):
        c.load_calibration(tmp_path / "ranges.json")

    assert [scales(one) for one in c.quantizers] == before
    pruned = nnc.compress(network.small(), [{"op_names": ["c1"], "sparsity": 0.5}])
    with pytest.raises(ConfigError, match=r"save_calibration\(\): nothing quantises this model"):
        pruned.save_calibration(tmp_path / "other.json")


def scales(quantizer):
    return {str(site): float(grid.scale) for site, grid in quantizer.grids().items() if site.tensor == "input"}


@pytest.mark.parametrize("entry", [{"algorithm": "ptq"}, {"algorithm": "qat_lsq", "quant_bits": 4}], ids=["ptq", "lsq"])
def test_a_model_that_is_quantised_again_is_measured_in_float(network, entry):
    images = network.images(4)
    model = network.small()
    nnc.compress(model, [{"algorithm": "ptq", "quant_bits": 3}], example_inputs=images / 2)

    again = nnc.compress(model, [entry], example_inputs=images).quantizers[0]

    assert scales(again) == scales(nnc.compress(network.small(), [entry], example_inputs=images).quantizers[0])


def test_a_quantizer_takes_up_ranges_that_it_finds_or_reads_later(network, tmp_path):
    from nnc_quantization import PTQQuantizer

    quantizer = PTQQuantizer(network.small(), [{}], network.images(4))
    quantizer.compress()
    first = scales(quantizer)
    quantizer.save_calibration(tmp_path / "ranges.json")

    quantizer.calibrate([2 * network.images(4)])
    quantizer.compress()
    second = scales(quantizer)
    quantizer.load_calibration(tmp_path / "ranges.json")
    quantizer.compress()

    assert second["c1.input"] == pytest.approx(2 * first["c1.input"], rel=1e-6)
    assert scales(quantizer) == first


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_data_that_is_not_finite_is_named_with_its_batch(network, bad):
    images = np.array(network.images())
    images[20] = bad
    data = [(network.tensor(images[:16]), network.labels(16)), (network.tensor(images[16:32]), network.labels(16))]

    with pytest.raises(ConfigError, match=r"c1\.input: calibration data: 64 of 1024 numbers are NaN or infinite\. It is batch 2"):
        nnc.compress(network.small(), [{"algorithm": "ptq"}], example_inputs=network.images(4), trainer=network.trainer(data))


def test_calibration_data_of_another_shape_is_refused_and_the_model_is_untouched(network):
    model = network.small()
    truth = network.run(model, network.images(4))
    data = [(network.tensor(np.zeros((4, 3, 3, 3))), network.labels(4))]

    with pytest.raises(ConfigError, match=r"channel|batch 1|shape"):
        nnc.compress(model, [{"algorithm": "ptq"}], example_inputs=network.images(4), trainer=network.trainer(data))
    assert np.array_equal(network.run(model, network.images(4)), truth)


def test_an_empty_calibration_set_says_what_to_pass(network):
    with pytest.raises(ConfigError, match=r"calibration data: has no batches; pass trainer="):
        nnc.compress(network.small(), [{"algorithm": "ptq"}], example_inputs=network.images(4), trainer=network.trainer([]))


def test_without_any_data_the_remedy_is_named(network):
    with pytest.raises(ConfigError, match=r"ranges are measured on data; pass trainer=nnc.Trainer\(data=...\), or example_inputs="):
        nnc.compress(network.small(), [{"algorithm": "ptq"}])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "qat_bnn"])
def test_channels_that_are_zero_everywhere_stay_zero(network, name, tmp_path):
    weight = np.ones((4, 6), np.float32)
    weight[2] = 0
    model, x = network.dense([weight]), network.tensor(np.linspace(0, 1, 12).reshape(2, 6))
    c = nnc.compress(model, [{"algorithm": name}], example_inputs=x)

    found = network.run(c.model, x)

    assert np.isfinite(found).all()
    assert found[:, 2] == pytest.approx([0.1, 0.1], abs=1e-3 if name != "qat_dorefa" else 0.02)
    assert c.export(tmp_path / "model.onnx", force=True).difference < 0.01


@pytest.mark.parametrize("bits", [0, 9, 1.5, "4"])
def test_bits_that_no_grid_has_are_refused(network, bits):
    with pytest.raises(ConfigError, match=r"config_list\[0\]\.quant_bits: .*is outside 2 to 8"):
        nnc.compress(network.small(), [{"algorithm": "ptq", "quant_bits": bits}], example_inputs=network.images(4))


def test_one_bit_is_for_binary_weights_only(network):
    with pytest.raises(ConfigError, match=r"quant_bits: 1 bits are outside 2 to 8 for 'ptq'"):
        nnc.compress(network.small(), [{"algorithm": "ptq", "quant_bits": 1}], example_inputs=network.images(4))


def test_an_entry_that_matches_no_layer_names_the_nearest(network):
    with pytest.raises(ConfigError, match=r"config_list\[0\]\.op_names: 'c3' matches no layer; nearest: 'c"):
        nnc.compress(network.small(), [{"algorithm": "ptq", "op_names": ["c3"]}], example_inputs=network.images(4))


def test_grids_before_calibration_are_refused(network):
    from nnc_quantization import PTQQuantizer

    with pytest.raises(ConfigError, match="export before calibration"):
        PTQQuantizer(network.small(), [{}], network.images(4)).grids()


@pytest.mark.parametrize("name", ["ptq", "qat_lsq"])
def test_a_model_without_its_grids_is_neither_calibrated_nor_exported(network, name, tmp_path):
    model = network.small()
    truth = network.run(model, network.images(4))
    c = nnc.compress(model, [{"algorithm": name}], example_inputs=network.images(4))
    c.unwrap()

    with pytest.raises(ConfigError, match=r"the model is on no grids any more: unwrap\(\) took them off; call nnc.compress again"):
        c.export(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"calibrate\(\): nothing quantises this model any more: unwrap\(\) took it off"):
        c.calibrate()
    assert np.array_equal(network.run(model, network.images(4)), truth)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "a.b", "a:b", ""])
@pytest.mark.parametrize("tensor", ["input", "input:1", "output", "output:logits"])
def test_a_tensor_with_a_colon_in_its_name_keeps_its_range(name, tensor, tmp_path):
    ranges = {Site(name, tensor): (-1.0, 2.0)}

    write_ranges(ranges, tmp_path / "ranges.json")

    assert read_ranges(tmp_path / "ranges.json") == ranges


@pytest.mark.parametrize("limits", ["[NaN, 1]", "[-Infinity, 1]", "[2, 1]", "[1]", "3"])
def test_a_range_that_no_numbers_have_is_refused(limits, tmp_path):
    (tmp_path / "ranges.json").write_text(f'{{"c1:input": {limits}}}')

    with pytest.raises(StorageError, match=r"ranges\.json: (c1\.input: .* is no range of finite numbers|holds no calibration)"):
        read_ranges(tmp_path / "ranges.json")


def test_ranges_that_cannot_be_written_are_one_clear_error(tmp_path):
    with pytest.raises(StorageError, match=r"none/ranges\.json: cannot be written: No such file"):
        write_ranges({}, tmp_path / "none" / "ranges.json")
