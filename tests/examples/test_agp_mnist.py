"""Gradual pruning with fine-tuning beats pruning at once, on the real MNIST, at 80 % of the channels removed."""

import os
from statistics import mean

import pytest

from benchmarks.agp_mnist import Budget, Contest
from nnc.mnist import load_digits


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("NNC_DATA"), reason="NNC_DATA names no folder with MNIST")
@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_agp_to_80_percent_keeps_98_5_percent_and_beats_one_shot_l1_of_the_same_budget(name):
    digits = load_digits()
    rows = [Contest(name, digits, Budget(), seed).run() for seed in range(3)]  # one seed is as good as a coin

    assert all(row.left < 0.05 * row.parameters for row in rows)
    assert mean(row.agp for row in rows) >= 0.985
    assert mean(row.agp for row in rows) > mean(row.one_shot for row in rows)
