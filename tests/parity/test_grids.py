"""Numbers on a grid, and the gradients through it: the same to the bit on both frameworks, up to the very last number that is clipped."""

import numpy as np
import pytest
import tensorflow as tf
import torch

from nnc_tensorflow import ops as tensorflow_ops
from nnc_torch import grids
from nnc_torch import ops as torch_ops

SIDES = {"torch": (torch_ops, torch.from_numpy), "tensorflow": (tensorflow_ops, tf.convert_to_tensor)}


@pytest.fixture(name="side", params=sorted(SIDES))
def give_side(request):
    return SIDES[request.param]


def scalar(tensor, number):
    return tensor(np.asarray(number, np.float32))


def around(scale, bounds):
    """Return float32 numbers within 3 of each bound times a scale, next to one another."""
    middle = (np.float32(bounds) * np.float32(scale)).astype(np.float32)
    steps = [middle]
    for end in (-np.inf, np.inf):
        reached = middle
        for _ in range(3):
            reached = np.nextafter(reached, np.float32(end))
            steps.append(reached)
    return np.concatenate(steps)


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.0078125, 1.7e-5, 3e4])
@pytest.mark.parametrize(("zero", "low", "high"), [(0, -127, 127), (3, 0, 255), (128, 0, 255), (7, 0, 15), (0, 0, 255)])
def test_gradients_pass_exactly_where_the_rounded_level_is_not_clipped(side, scale, zero, low, high):
    ops, tensor = side
    x = around(scale, [low - zero - 0.5, low - zero, high - zero, high - zero + 0.5])
    gradient = np.arange(1, len(x) + 1, dtype=np.float32)

    given = (tensor(gradient), tensor(x), scalar(tensor, scale), scalar(tensor, zero))
    found = np.asarray(ops.clip_gradient_of_levels(*given, low, high))

    level = np.rint(x / np.float32(scale)) + np.float32(zero)
    assert found.tolist() == np.where((level >= low) & (level <= high), gradient, 0).tolist()


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1.7e-5, 3e4])
def test_what_a_scale_learns_from_stops_exactly_at_the_bounds(side, scale):
    ops, tensor = side
    x = around(scale, [-4.0, 0.3, 7.0])
    gradient = np.linspace(-1, 1, len(x), dtype=np.float32)

    given = (tensor(gradient), tensor(x), tensor(np.ones_like(x)), scalar(tensor, scale))
    passed, summed = ops.ratio_gradients(*given, -4.0, 7.0)

    ratio = x / np.float32(scale)
    wanted = np.where((ratio >= -4) & (ratio <= 7), gradient, 0)
    assert np.asarray(passed).tolist() == wanted.tolist()
    assert float(summed) == pytest.approx(np.sum(gradient - wanted.astype(np.float64) * x), rel=1e-5, abs=1e-5)


def test_levels_lie_on_the_grid_as_numpy_has_them(side):
    ops, tensor = side
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)

    found = np.asarray(ops.on_grid(tensor(x), scalar(tensor, 0.03), scalar(tensor, 100), 0, 255))

    levels = np.clip(np.rint(x / np.float32(0.03)) + 100, 0, 255)
    assert found.tolist() == ((levels - 100).astype(np.float32) * np.float32(0.03)).tolist()


@pytest.mark.parametrize("shape", [(2 * grids._BLOCK + 5,), (700, 500)])
@pytest.mark.parametrize("strided", [False, True])
def test_what_goes_through_the_cache_in_blocks_is_what_the_whole_is(monkeypatch, shape, strided):
    torch.manual_seed(0)
    x, gradient = (torch.randn(shape).mT if strided and len(shape) > 1 else torch.randn(shape) for _ in range(2))
    scales = [torch.tensor(0.1), *([torch.rand(len(x), 1) + 0.1] if x.ndim == 2 else [])]

    def computed():
        shown = [torch_ops.on_grid(x, scale, None, -7, 7) for scale in scales]
        return shown, torch_ops.ratio_gradients(gradient, x, shown[0], scales[0], -7.0, 7.0)

    shown, (passed, summed) = computed()
    monkeypatch.setattr(grids, "_BLOCK", 1 << 30)
    whole, (all_passed, _) = computed()
    terms = (gradient.double() * shown[0].double(), passed.double() * x.double())

    assert all(torch.equal(one, other) for one, other in zip(shown, whole, strict=True))
    assert torch.equal(passed, all_passed)
    assert float(summed) == pytest.approx(float((terms[0] - terms[1]).sum()), abs=1e-7 * float(terms[0].abs().sum()))
