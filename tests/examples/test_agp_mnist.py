"""Gradual pruning with fine-tuning beats pruning at once, on the real MNIST, at 80 % of the channels removed."""

import os

import pytest

from benchmarks.agp_mnist import Budget, Contest
from nnc.mnist import load_digits


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("NNC_DATA"), reason="NNC_DATA names no folder with MNIST")
@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_agp_to_80_percent_keeps_98_5_percent_and_beats_one_shot_l1_of_the_same_budget(name):
    row = Contest(name, load_digits(), Budget(), seed=0).run()

    assert row.left < 0.05 * row.parameters
    assert row.agp >= 0.985
    assert row.agp > row.one_shot
