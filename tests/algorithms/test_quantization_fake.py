"""Fake quantisation and its gradients are those of other implementations, and the same on both frameworks."""

import numpy as np
import pytest

from nnc.grid import Grid
from nnc_quantization import fake
from tests.algorithms.quantization_tensors import ANSWERS, assert_on_grid, on_both

ROWS = np.array(ANSWERS["brevitas_weights"]["x"], np.float32)


def cases(group):
    return [pytest.param(case, id=case.get("name", str(index))) for index, case in enumerate(ANSWERS[group]["cases"])]


def ste(case):
    scale, zero = np.float32(case["scale"]), np.float32(case["zero_point"])
    return on_both(lambda ops, x, s, z: fake.ste(x, s, z, case["qmin"], case["qmax"], ops), case["g"], case["x"], scale, zero)


@pytest.mark.parametrize("case", cases("fake_quantize_per_tensor_affine"))
def test_ste_is_torchs_fake_quantize(case):
    found, (by_x, by_scale, by_zero) = ste(case)

    assert_on_grid(found, case["y"], case["x"], case["scale"])
    np.testing.assert_allclose(by_x, case["dx"])
    assert by_scale is None
    assert by_zero is None


def test_the_symmetric_ste_is_the_other_with_zero_in_the_middle():
    """2.5 rounds to 2, and 7.5 to 8, which is clipped and passes nothing on."""
    found, (by_x, by_scale) = on_both(lambda ops, x, s: fake.ste_symmetric(x, s, 7, ops), 1, [-9.0, -7.5, 2.5, 7.4, 7.5], np.float32(1))

    assert found.tolist() == [-7, -7, 2, 7, 7]
    assert by_x.tolist() == [0, 0, 1, 1, 0]
    assert by_scale is None


@pytest.mark.parametrize("axis", [0, 1])
def test_ste_with_a_scale_for_each_channel_is_torchs(axis):
    case = ANSWERS[f"fake_quantize_per_channel_axis{axis}"]
    scale = np.array(case["scale"], np.float32).reshape((-1, 1) if axis == 0 else (1, -1))

    found, (by_x, *_) = on_both(lambda ops, x, s: fake.ste(x, s, ops.zeros_like(s), -127, 127, ops), 0.5, case["x"], scale)

    assert_on_grid(found, case["y"], case["x"], scale)
    np.testing.assert_allclose(by_x, case["dx_for_g0.5"])


@pytest.mark.parametrize("case", cases("lsq_per_tensor"))
def test_lsq_is_torchs_on_the_way_forward_and_the_papers_on_the_way_back(case):
    def lsq(ops, x, scale):
        return fake.lsq(x, scale, case["qmin"], case["qmax"], case["grad_factor"], None, ops)

    found, (by_x, by_scale) = on_both(lsq, case["g"], case["x"], np.float32(case["scale"]))

    assert_on_grid(found, case["y"], case["x"], case["scale"])
    steps = np.array(case["x"], np.float32) / np.float32(case["scale"])
    inside = (steps > case["qmin"]) & (steps < case["qmax"])
    np.testing.assert_allclose(by_x, np.where(inside, case["g"], 0))
    np.testing.assert_allclose(by_scale, case["dscale_paper_formula"], rtol=1e-5)


def test_lsq_with_a_scale_for_each_channel_is_torchs_where_nothing_is_on_the_boundary():
    case = ANSWERS["lsq_per_channel_int4"]
    scale = np.array(case["init_scale_2mean_abs_over_sqrtQp"], np.float32).reshape(-1, 1)

    found, (by_x, by_scale) = on_both(lambda ops, x, s: fake.lsq(x, s, -8, 7, case["grad_factor"], (1,), ops), case["g"], case["x"], scale)

    assert_on_grid(found, case["y"], case["x"], scale)
    np.testing.assert_allclose(by_x, case["dx"], rtol=1e-6)
    np.testing.assert_allclose(by_scale.ravel(), np.ravel(case["dscale"]), rtol=1e-5)


@pytest.mark.parametrize("case", cases("lsq_plus_learnable_zp"))
def test_lsq_plus_is_torchs_with_a_learned_zero_point(case):
    def lsq_plus(ops, x, scale, zero):
        return fake.lsq_plus(x, scale, zero, case["qmin"], case["qmax"], case["grad_factor"], ops)

    found, (by_x, by_scale, by_zero) = on_both(lsq_plus, case["g"], case["x"], np.float32(case["scale"]), np.float32(case["zero_point"]))

    assert_on_grid(found, case["y"], case["x"], case["scale"])
    np.testing.assert_allclose(by_x, case["dx"])
    np.testing.assert_allclose(by_scale, case["dscale"][0], rtol=1e-4)
    np.testing.assert_allclose(by_zero, case["dzero_point"][0], rtol=1e-4)


@pytest.mark.parametrize("case", cases("tf_fake_quant_with_min_max_vars"))
def test_a_range_nudged_as_tensorflow_does_gives_tensorflows_numbers(case):
    low, high = int(case["narrow_range"]), 2 ** case["num_bits"] - 1
    scale = np.float32((case["max"] - case["min"]) / (high - low))
    zero = np.clip(np.rint(low - case["min"] / scale), low, high).astype(np.float32)

    found, (by_x, *_) = on_both(lambda ops, x, s, z: fake.ste(x, s, z, low, high, ops), case["g"], case["x"], scale, zero)

    assert_on_grid(found, case["y"], case["x"], scale)
    # TensorFlow clips at the outermost levels, others half a step beyond.
    x = np.array(case["x"], np.float32)
    outermost = np.minimum(np.abs(x - (low - zero) * scale), np.abs(x - (high - zero) * scale)) <= scale / 2 * 1.001
    np.testing.assert_allclose(by_x[~outermost], np.array(case["dx"])[~outermost])


def test_a_scale_for_each_column_is_tensorflows_last_axis():
    case = ANSWERS["tf_fake_quant_per_channel_last_axis"]
    scale = np.array(case["absmax"], np.float32) / 127

    found, _ = on_both(lambda ops, x, s: fake.ste(x, s, ops.zeros_like(s), -127, 127, ops), 1, case["x"], scale)

    assert_on_grid(found, case["y"], case["x"], scale)


@pytest.mark.parametrize("case", cases("ort_quantize_dequantize_linear"))
def test_a_grid_holds_the_levels_that_onnx_runtime_computes(case):
    bits = int("".join(letter for letter in case["dtype"] if letter.isdigit()))
    axis = 0 if isinstance(case["scale"], list) else None
    grid = Grid(case["scale"], case["zero_point"], bits, case["dtype"].startswith("int"), axis=axis)

    x = np.array(case["x"], np.float32)

    assert_on_grid(grid(x), case["y"], x, grid._spread(x.shape)[0])
    if case["q"] is not None:
        np.testing.assert_allclose(grid.dequantise(np.array(case["q"])), case["y"], rtol=1e-6)


@pytest.mark.parametrize(("group", "axis"), [("per_tensor", None), ("per_channel", 0)])
def test_a_grid_around_zero_is_brevitass_of_weights(group, axis):
    case = ANSWERS["brevitas_weights"][group]
    grid = Grid.around_zero(ROWS, 8, axis)

    np.testing.assert_allclose(grid.scale.ravel(), case["scale"], rtol=1e-6)
    assert_on_grid(grid(ROWS), case["y"], ROWS, grid._spread(ROWS.shape)[0])


def test_binary_weights_are_brevitass_signs():
    found, _ = on_both(lambda ops, x: fake.binary(x, ops) * 0.1, 1, ROWS)

    np.testing.assert_allclose(found, ANSWERS["brevitas_weights"]["binary_const0.1"]["y"], rtol=1e-6)


def test_pact_clips_at_alpha_and_alpha_learns_from_what_reaches_it():
    """Two bits, alpha 3: levels 0, 1, 2, 3. What is at or above alpha gives alpha its gradient, 5 + 6."""
    found, (by_x, by_alpha) = on_both(
        lambda ops, x, alpha: fake.pact(x, alpha, 2, ops), [1, 2, 3, 4, 5, 6], [-1.0, 0.4, 1.6, 2.4, 3.0, 9.0], np.float32(3)
    )

    assert found.tolist() == [0, 0, 2, 2, 3, 3]
    assert by_x.tolist() == [0, 2, 3, 4, 0, 0]
    assert by_alpha == 11


def test_signed_pact_clips_on_both_sides():
    """Three bits, alpha 3: levels -3 to 3. Alpha's gradient is what lies above minus what lies below: 4 - 1."""
    found, (by_x, by_alpha) = on_both(
        lambda ops, x, alpha: fake.pact_signed(x, alpha, 3, ops), [1, 2, 3, 4], [-5.0, -1.4, 0.6, 4.0], np.float32(3)
    )

    assert found.tolist() == [-3, -1, 1, 3]
    assert by_x.tolist() == [0, 2, 3, 0]
    assert by_alpha == 3


def test_dorefa_squashes_by_tanh_and_rounds_to_odd_multiples():
    """Two bits: thirds. tanh(w) / (2 max) + 1/2 = 0, 0.5 + tanh(0.5) / 2 tanh(2), 1; the middle, 0.7397, rounds to 2/3."""
    found, _ = on_both(lambda ops, x: fake.dorefa(x, 2, ops), 1, [-2.0, 0.5, 2.0])

    np.testing.assert_allclose(found, [-1, 1 / 3, 1], atol=1e-6)


def test_dorefas_gradient_is_that_of_the_squashed_weight():
    """d/dw tanh(w) / max, the largest apart: (1 - tanh^2 0.5) / tanh 2."""
    _, (by_x,) = on_both(lambda ops, x: fake.dorefa(x, 2, ops), [0, 1, 0], [-2.0, 0.5, 2.0])

    assert by_x[1] == pytest.approx((1 - np.tanh(0.5) ** 2) / np.tanh(2), rel=1e-5)


def test_dorefa_of_one_bit_is_the_sign_times_the_mean():
    found, (by_x,) = on_both(lambda ops, x: fake.dorefa(x, 1, ops), [1, 2, 3], [-1.0, 0.5, 3.0])

    np.testing.assert_allclose(found, [-1.5, 1.5, 1.5])
    assert by_x.tolist() == [1, 2, 3]


def test_dorefas_activations_are_clipped_to_one():
    found, (by_x,) = on_both(lambda ops, x: fake.dorefa_activation(x, 2, ops), [1, 2, 3, 4], [-0.5, 0.3, 0.9, 1.5])

    np.testing.assert_allclose(found, [0, 1 / 3, 1, 1], rtol=1e-6)
    assert by_x.tolist() == [0, 2, 3, 0]


def test_a_binary_weight_is_a_sign_whose_gradient_ends_at_one():
    found, (by_x,) = on_both(lambda ops, x: fake.binary(x, ops), [1, 2, 3, 4, 5], [-2.0, -1.0, 0.0, 0.5, 1.5])

    assert found.tolist() == [-1, -1, 1, 1, 1]
    assert by_x.tolist() == [0, 2, 3, 4, 0]


def test_a_grid_that_covers_everything_is_that_of_ste_and_passes_every_gradient():
    x, g = np.array([[-1.0, 0.3, 0.7], [0.0, 0.0, 0.0]], np.float32), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    scale = np.array([[1 / 7], [1e-8]], np.float32)

    found, (by_x, _) = on_both(lambda ops, x, s: fake.covered(x, s, ops), g, x, scale)
    expected, (same, _) = on_both(lambda ops, x, s: fake.ste_symmetric(x, s, 7, ops), g, x, scale)

    assert np.array_equal(found, expected)
    assert np.array_equal(by_x, g) and np.array_equal(same, g)
