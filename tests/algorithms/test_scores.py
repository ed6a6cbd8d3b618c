"""Scores worked out by hand, on weights small enough to see."""

import numpy as np
import pytest

from nnc_pruning import FPGMPruner, L1NormPruner, L2NormPruner, LevelPruner, RandomPruner
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_framework")

HALF = [{"sparsity": 0.5}]


def scores(pruner, weight):
    model = fakes.layer(weight)
    return pruner(model, HALF).score(fakes.FakeLayer(model, "fc"))


def test_l1_is_the_sum_of_magnitudes_of_a_channel():
    assert scores(L1NormPruner, [[[1, -2], [3, 0]], [[0, 0], [0.5, 0]]]).tolist() == [6, 0.5]


def test_l2_is_the_length_of_a_channel():
    assert scores(L2NormPruner, [[3, -4], [5, 12]]).tolist() == [5, 13]


def test_level_is_the_magnitude_of_each_weight():
    assert scores(LevelPruner, [[3, -4], [0, 1]]).tolist() == [[3, 4], [0, 1]]


def test_fpgm_is_the_sum_of_distances_to_the_other_channels():
    # (0,0), (3,4), (6,8) lie on a line, 5 apart: 5+10, 5+5, 10+5.
    np.testing.assert_allclose(scores(FPGMPruner, [[0, 0], [3, 4], [6, 8]]), [15, 10, 15], rtol=1e-12)


def test_fpgm_sees_no_distance_between_equal_channels():
    twins = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]) * 1e3

    assert scores(FPGMPruner, twins).tolist() == [0, 0]


def test_fpgm_by_blocks_is_fpgm_at_once(monkeypatch):
    weight = np.random.default_rng(0).normal(size=(7, 3))
    whole = scores(FPGMPruner, weight)

    monkeypatch.setattr("nnc_pruning.fpgm._BLOCK", 2)

    np.testing.assert_allclose(scores(FPGMPruner, weight), whole, rtol=1e-12)


def test_random_draws_by_seed_and_layer():
    model = fakes.lenet()
    draw = {seed: RandomPruner(model, HALF, seed=seed).score(fakes.FakeLayer(model, "conv1")) for seed in (0, 1)}

    assert (draw[0] != draw[1]).all()
    assert (RandomPruner(model, HALF).score(fakes.FakeLayer(model, "conv1")) == draw[0]).all()
