"""A graph is recorded once for a pruner and the speedup after it, and again as soon as anything that it follows from has changed."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch.adapter import TorchAdapter


class Net(nn.Module):
    """Counts its forward passes; what it does hangs on what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(4, 5)
        self.scale, self.table = 1.0, np.arange(3)
        self.config = SimpleNamespace(order=["first", "second"], nested={"twice": [False]})
        self.register_buffer("positions", torch.tensor([0, 1]))

    def forward(self, x: torch.Tensor, double: bool = False) -> torch.Tensor:
        RUNS.append(self)
        for name in self.config.order:
            x = getattr(self, name)(x)
        x = x + x if double or self.config.nested["twice"][0] else x
        return x[self.positions] * self.scale


RUNS: list[nn.Module] = []


def recordings(model: nn.Module, *inputs: object) -> int:
    """Return how often the model runs when its structure is asked for."""
    RUNS.clear()
    for each in inputs:
        TorchAdapter(model).structure(each)
    return len(RUNS)


def test_the_speedup_after_a_pruner_records_the_small_model_only():
    model, x = Net(), torch.randn(2, 3)
    masks = L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first"]}], example_inputs=x).propose()
    RUNS.clear()

    small = nnc.ModelSpeedup(model, x, masks).speedup_model()

    # The masked model runs once for its outputs, the small one once for its graph and once for its outputs.
    assert [type(run) for run in RUNS] == [Net, Net, Net]
    assert sum(run is model for run in RUNS) == 1
    assert small.first.out_features == 2


def test_weights_may_have_other_numbers():
    model, x = Net(), torch.randn(2, 3)
    first = TorchAdapter(model).structure(x)
    with torch.no_grad():
        model.first.weight.mul_(2)

    again = TorchAdapter(model).structure(x)

    assert recordings(model, x) == 0
    weight = again.parameters()["first.weight"]
    assert weight is first.parameters()["first.weight"]
    torch.testing.assert_close(torch.from_numpy(weight.data()), model.first.weight.detach())


def _replace_a_weight(model: Net) -> None:
    model.first.weight = nn.Parameter(torch.ones(4, 3))


CHANGES = {
    "a number": lambda model: setattr(model, "scale", 2.0),
    "a config": lambda model: setattr(model.config, "order", ["first", "other"]),
    "a list in a config": lambda model: model.config.order.__setitem__(1, "other"),
    "a list in a dict in a config": lambda model: model.config.nested["twice"].__setitem__(0, True),
    "a layer": lambda model: setattr(model, "second", nn.Linear(4, 5)),
    "a weight": _replace_a_weight,
    "a weight's memory": lambda model: setattr(model.first.weight, "data", torch.ones(4, 3)),
    "a weight's type": lambda model: model.double(),
    "what is frozen": lambda model: model.first.requires_grad_(False),
    "positions": lambda model: model.positions.add_(0),
    "an array": lambda model: model.table.__setitem__(0, 5),
    "a hook": lambda model: model.first.register_forward_hook(lambda *_: None),
    "a forward of its own": lambda model: setattr(model.first, "forward", lambda x: x[..., :1].expand(-1, 4)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_a_graph_follows_from_makes_another_recording(change):
    model, x = Net(), torch.randn(2, 3)
    assert recordings(model, x, x) == 1
    change(model)
    x = x.to(model.first.weight.dtype) if model.first.weight.dtype != x.dtype else x

    assert recordings(model, x) == 1


def test_a_forward_of_the_class_makes_another_recording(monkeypatch):
    model, x = Net(), torch.randn(2, 3)
    assert recordings(model, x, x) == 1
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: nn.functional.linear(x, self.weight, self.bias) + 1)

    assert recordings(model, x) == 1


def test_other_inputs_make_another_recording():
    model, x = Net(), torch.randn(2, 3)

    assert recordings(model, {"x": x}, {"x": x}) == 1
    assert recordings(model, {"x": x, "double": True}) == 1
    assert recordings(model, {"x": x.clone()}) == 1


def test_a_model_that_holds_a_dataset_is_recorded_each_time():
    model, x = Net(), torch.randn(2, 3)
    model.rows = [{"text": str(number)} for number in range(60_000)]

    assert recordings(model, x, x) == 2


def test_nothing_keeps_a_model_alive():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    model.own = nn.Parameter(torch.ones(1))
    gone = weakref.ref(model)
    TorchAdapter(model).structure(torch.randn(1, 1, 4, 4))

    del model
    gc.collect()

    assert gone() is None
