"""An int8 file is called faster only where its timings agree on that; where they do not, it is timed longer."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import ExportError
from nnc_onnx import write

FLOAT = [1.0] * 25


@pytest.fixture
def small():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    return nnc.compress(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), [{"algorithm": "ptq"}], example_inputs=x)


def timings(monkeypatch, *files):
    """Let the file take these seconds, one list a round, and return the list in which the rounds are counted."""
    rounds = []

    def seconds_by_turns(calls, repeats):
        rounds.append(repeats)
        return {"float": FLOAT, "file": files[len(rounds) - 1]}

    monkeypatch.setattr(write, "seconds_by_turns", seconds_by_turns)
    return rounds


def test_timings_that_agree_are_made_once(small, monkeypatch, tmp_path):
    rounds = timings(monkeypatch, [0.5] * 25)

    result = small.export(tmp_path / "small.onnx")

    assert rounds == [write.REPEATS]
    assert np.isclose(result.latency.after / result.latency.before, 0.5)


def test_timings_that_disagree_are_made_again_and_all_of_them_count(small, monkeypatch, tmp_path):
    rounds = timings(monkeypatch, [0.8] * 6 + [1.2] * 19, [0.8] * 25, [0.8] * 25)

    result = small.export(tmp_path / "small.onnx")

    assert len(rounds) == 2
    assert np.isclose(result.latency.after, 0.8)  # of 50 runs 31 took 0.8


def test_a_file_that_is_slower_once_timed_longer_is_refused(small, monkeypatch, tmp_path):
    rounds = timings(monkeypatch, [0.8] * 3 + [1.2] * 22, *[[1.2] * 25] * 3)

    with pytest.raises(ExportError, match="slower"):
        small.export(tmp_path / "small.onnx")
    assert len(rounds) == write.ROUNDS  # the few fast runs never agree with the others
    assert not (tmp_path / "small.onnx").exists()
