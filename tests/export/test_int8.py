"""int8 ONNX: integer kernels where they were ordered, and the numbers that the fake-quantised model gives."""

import numpy as np
import onnxruntime
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.export import plain
from nnc.grid import Grid
from nnc.registry import adapter_for
from nnc.views import Site
from nnc_onnx.levels import weight_levels
from nnc_onnx.write import unlike
from tests.export.quantised import grids_of, simulated
from tests.frameworks import images

#: What of the tests' residual network needs a grid at its output: what is summed, and what a mean is taken of.
SUMMED = ("project", "mix")


def network(framework, name):
    inputs = framework.inputs(np.abs(images(16, 3, 12) if name == "residual" else images(16)))
    return framework.build(name), inputs


def kernels(result):
    return {one.layer: one.kernel for one in result.placed}


def exact(path, array):
    """Run a file with kernels that cannot overflow, whatever the processor."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.asarray(array)})[0]


def test_every_layer_of_a_cnn_gets_an_integer_kernel(framework, tmp_path):
    model, inputs = network(framework, "lenet")

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids_of(model, inputs), force=True)

    assert kernels(result) == {"conv1": "QLinearConv", "conv2": "QLinearConv", "fc1": "QGemm", "fc2": "QGemm"}
    assert result.bytes < 0.28 * result.float_bytes


@pytest.mark.parametrize("name", ["lenet", "residual"])
def test_the_file_computes_what_the_fake_quantised_model_computes(framework, name, tmp_path):
    model, inputs = network(framework, name)
    grids = grids_of(model, inputs, SUMMED if name == "residual" else ())
    expected = simulated(model, inputs, grids)[0]

    nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    apart = np.abs(exact(tmp_path / "net.onnx", inputs) - expected)
    step = (expected.max() - expected.min()) / 255
    assert (apart <= 2 * step).mean() >= 0.99


def test_a_residual_network_with_batch_norm_runs_in_integers_throughout(framework, tmp_path):
    model, inputs = network(framework, "residual")

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids_of(model, inputs, SUMMED), force=True)

    assert set(kernels(result).values()) == {"QLinearConv", "QGemm"}


def test_export_leaves_the_views_on_the_model(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = grids_of(model, inputs)
    expected = simulated(model, inputs, grids)[0]

    nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert np.array_equal(adapter_for(model).run(inputs)[0], expected)


def test_a_plain_model_has_the_effective_weights(framework):
    model, inputs = network(framework, "lenet")
    grids = {site: grid for site, grid in grids_of(model, inputs, bits=4).items() if site.is_parameter}
    expected = simulated(model, inputs, grids)[0]
    adapter = adapter_for(model)

    with plain(adapter):
        assert adapter.views() == {}
        assert np.abs(adapter.run(inputs)[0] - expected).max() < 1e-5


def test_the_reference_given_is_what_is_compared_with(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = grids_of(model, inputs)
    expected = simulated(model, inputs, grids)

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, reference=expected, force=True)

    assert result.compared_with == "the reference given"
    assert result.difference < 0.02


def test_four_bit_weights_go_into_bytes_where_inputs_are_quantised(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = grids_of(model, inputs, bits=4)
    expected = simulated(model, inputs, grids)[0]

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert set(kernels(result).values()) == {"QLinearConv", "QGemm"}
    step = (expected.max() - expected.min()) / 255
    assert (np.abs(exact(tmp_path / "net.onnx", inputs) - expected) <= 2 * step).mean() >= 0.99


def test_weights_of_four_bits_alone_read_a_quarter_of_the_memory(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    weight = np.asarray(next(layer for layer in adapter_for(model).layers() if layer.name == "fc1").weight)
    grids = {Site("fc1", "weight"): Grid.around_zero(weight, 4, axis=0, block=32)}

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert kernels(result) == {"fc1": "MatMulNBits"}
    assert result.bytes < 0.3 * result.float_bytes


def test_dynamic_quantises_linear_layers_and_leaves_convolutions(framework, tmp_path):
    model, inputs = network(framework, "lenet")

    result = nnc.export(model, tmp_path / "net.onnx", inputs, dynamic=True, force=True)

    assert kernels(result) == {"fc1": "DynamicQuantizeMatMul", "fc2": "DynamicQuantizeMatMul"}
    assert result.difference < 0.05


def test_dynamic_says_why_a_convolution_stays_float(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    weight = np.asarray(next(layer for layer in adapter_for(model).layers() if layer.name == "conv2").weight)
    grids = {Site("conv2", "weight"): Grid.around_zero(weight, axis=0)}

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, dynamic=True, force=True)

    reasons = {one.layer: one.reason for one in result.placed}
    assert "slower than float" in reasons["conv2"]


def test_a_convolution_without_a_grid_behind_it_stays_float_and_says_so(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = {site: grid for site, grid in grids_of(model, inputs).items() if site.layer != "fc1"}

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    reasons = {one.layer: one.reason for one in result.placed}
    assert reasons == {"conv1": "", "conv2": "neither conv2.output nor what reads it has a grid", "fc2": ""}


def test_a_grid_of_an_unknown_layer_is_refused(framework, tmp_path):
    model, inputs = network(framework, "lenet")

    with pytest.raises(nnc.ConfigError, match=r"grids: the model has no parameter 'conv9.weight'; nearest: 'conv1.weight'"):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids={Site("conv9", "weight"): Grid(1.0, 0)})


def test_grids_of_inputs_alone_quantise_nothing_and_are_refused(framework, tmp_path):
    model, inputs = network(framework, "lenet")

    with pytest.raises(nnc.ExportError, match="no layer can be quantised"):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids={Site("fc1", "input"): Grid.between(0, 1)})

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_slower_than_float_is_refused_with_the_reason(framework, tmp_path):
    model, inputs = network(framework, "residual")

    with pytest.raises(nnc.ExportError, match="the quantised file is slower"):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids_of(model, inputs, SUMMED))

    assert list(tmp_path.iterdir()) == []


def test_the_result_prints_each_layer_with_its_kernel(framework, tmp_path):
    model, inputs = network(framework, "lenet")

    shown = str(nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids_of(model, inputs), force=True))

    assert "conv1" in shown and "QLinearConv" in shown and "times as fast" in shown


def test_a_file_that_is_not_the_fake_quantised_model_is_refused(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = grids_of(model, inputs)
    other = [-array for array in simulated(model, inputs, grids)]

    with pytest.raises(nnc.ExportError, match=r"output 0 differs by [\d.]+% of its range where rounding explains [\d.]+%"):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, reference=other)

    assert list(tmp_path.iterdir()) == []
    assert nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, reference=other, force=True).difference > 0.5


@pytest.mark.parametrize(("shift", "refused"), [(0.019, False), (0.021, True), (np.nan, True)])
def test_rounding_explains_five_steps_of_the_outputs_range(shift, refused):
    simulated = np.linspace(-0.5, 0.5, 11, dtype=np.float32)

    assert bool(unlike(simulated + np.float32(shift), simulated, simulated)) == refused


def test_rounding_explains_no_more_than_what_quantising_activations_changes():
    simulated = np.linspace(-0.5, 0.5, 11, dtype=np.float32)

    assert unlike(simulated + np.float32(0.09), simulated, simulated - np.float32(0.1)) == ""
    assert (
        unlike(simulated + np.float32(0.11), simulated, simulated - np.float32(0.1)) == "11.0% of its range where rounding explains 10.0%"
    )


def test_a_linear_layer_is_integer_where_a_float_layer_reads_its_relu(framework, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = {site: grid for site, grid in grids_of(model, inputs).items() if site.layer != "fc2"}
    expected = simulated(model, inputs, grids)[0]

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert kernels(result)["fc1"] == "QGemm"
    step = (expected.max() - expected.min()) / 255
    assert np.abs(exact(tmp_path / "net.onnx", inputs) - expected).max() <= 2 * step


@pytest.mark.parametrize(("weights", "passed"), [(2, 2), (8, 3)])
def test_grids_of_few_bits_do_not_coarsen_biases(framework, weights, passed, tmp_path):
    model, inputs = network(framework, "lenet")
    grids = grids_of(model, inputs, bits=weights, passed=passed)
    expected = simulated(model, inputs, grids)[0]

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert set(kernels(result).values()) == {"QLinearConv", "QGemm"}
    found = exact(tmp_path / "net.onnx", inputs)
    step = (expected.max() - expected.min()) / 255
    assert (np.abs(found - expected) <= 2 * step).mean() >= 0.99
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("layer", ["conv1", "fc1"])
def test_a_channel_without_weights_keeps_its_bias(framework, layer, tmp_path):
    """The step of such a weight is 1e-8: a bias of 5 would be more steps than int32 has."""
    model, inputs = network(framework, "lenet")
    adapter = adapter_for(model)
    found = next(one for one in adapter.layers() if one.name == layer)
    weight, bias = to_numpy(found.weight).copy(), to_numpy(found.bias).copy()
    weight[0], bias[0] = 0, 5
    adapter.write({Site(layer, "weight"): weight, Site(layer, "bias"): bias})
    grids = grids_of(model, inputs)
    expected = simulated(model, inputs, grids)[0]

    result = nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)

    assert kernels(result) == {"conv1": "QLinearConv", "conv2": "QLinearConv", "fc1": "QGemm", "fc2": "QGemm"}
    apart = np.abs(exact(tmp_path / "net.onnx", inputs) - expected)
    assert (apart <= 2 * (expected.max() - expected.min()) / 255).mean() >= 0.99


def test_a_weight_in_steps_too_fine_for_its_bias_takes_larger_ones():
    """1e6 / (2^30 * 0.001) is a step of 0.931; the weight of 3, 30 steps of 0.1, is then 3 steps."""
    grid = Grid(np.array([0.1, 0.1]), np.zeros(2), 8, True, True, 0)
    weight = np.array([[3.0, -3.0], [3.0, -3.0]], np.float32)

    found = weight_levels(grid, weight, weight).beside(np.array([1e6, 1.0]), 0.001)

    assert found.scale.tolist() == pytest.approx([0.931323, 0.1])
    assert found.levels.tolist() == [[3, -3], [30, -30]]
