"""Graphs are recorded without most numbers; code that looks at such a number gets the real ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import TraceError
from nnc_pruning import L1NormPruner
from nnc_torch.adapter import TorchAdapter


class Routed(nn.Module):
    """Two experts; which one runs is decided by the numbers that `gate` gives, as `look` reads them."""

    def __init__(self, look: Callable[[torch.Tensor], bool]) -> None:
        super().__init__()
        self.look = look
        self.gate, self.first, self.second = nn.Linear(3, 1), nn.Linear(3, 4), nn.Linear(3, 4)
        nn.init.ones_(self.gate.weight)
        nn.init.ones_(self.gate.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) if self.look(self.gate(x)) else self.second(x)


LOOKS = {
    "item": lambda gate: gate.sum().item() > 0,
    "bool": lambda gate: bool((gate > 0).all()),
    "tolist": lambda gate: gate.tolist()[0][0] > 0,
    "numpy": lambda gate: gate.detach().numpy().max() > 0,
    "asarray": lambda gate: np.asarray(gate).max() > 0,
    "nonzero": lambda gate: len(gate.nonzero()) > 0,
    "a mask as an index": lambda gate: len(gate[gate > 0]) > 0,
}


def layers_run(model: nn.Module, x: torch.Tensor) -> set[str]:
    return {node.layer for node in TorchAdapter(model).trace(x, {}).graph.nodes if node.kind == "linear"}


#: What is left out may be written over; from then on its numbers are real.
WRITTEN = {
    "zero_": lambda gate: gate.zero_().sum().item() == 0,
    "fill_": lambda gate: gate.fill_(2).sum().item() == 4,
    "a part of a view": lambda gate: gate.view(-1)[:1].copy_(torch.tensor([7.0])).item() == 7,
    "out=": lambda gate: torch.add(torch.ones(2, 1), 1.0, out=gate).sum().item() == 4,
}


@pytest.mark.parametrize("look", WRITTEN.values(), ids=WRITTEN.keys())
def test_an_expert_is_chosen_by_real_numbers_that_were_written_over_others(look):
    def between(gate: torch.Tensor) -> bool:
        found = look(gate)
        return found and (gate + 1).sum().item() != 0  # another pass over the memory that is not computed

    assert layers_run(Routed(between), torch.ones(2, 3)) == {"gate", "first"}


#: (what is done with a product of 2 rows of 4 channels, the shape that comes out)
FOLLOWING = {
    "sum with a row": (lambda x: x + torch.ones(4), (2, 4)),
    "sum with a larger one": (lambda x: torch.ones(3, 2, 4) * x, (3, 2, 4)),
    "sum with a number": (lambda x: x.sub(1.0).div(2.0), (2, 4)),
    "in place": (lambda x: x.add_(1).mul_(torch.ones(4)).relu_(), (2, 4)),
    "in place, through a view": (lambda x: x.view(2, 2, 2).relu_(), (2, 2, 2)),
    "padding": (lambda x: nn.functional.pad(x, (1, 2, 3, 0)), (5, 7)),
    "negative padding": (lambda x: nn.functional.pad(x, (-1, 0)), (2, 3)),
    "transposed": (lambda x: torch.sigmoid(x.t()), (4, 2)),
    "double": (lambda x: x.double() + torch.ones(2, 4, dtype=torch.float64), (2, 4)),
}


@pytest.mark.parametrize(("follow", "shape"), FOLLOWING.values(), ids=FOLLOWING.keys())
def test_what_follows_from_numbers_left_out_has_the_shapes_and_strides_of_real_ones(follow, shape):
    class Follows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.strides = nn.Linear(3, 4), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = follow(self.layer(x))
            self.strides.append((tuple(result.shape), result.stride(), result.dtype))
            return result

    model, x = Follows(), torch.ones(2, 3)

    trace = TorchAdapter(model).trace(x, {})
    model(x)

    assert trace.graph.outputs[0].shape == shape
    assert model.strides[0] == model.strides[-1]
    assert len(model.strides) == 2, "the pass was recorded a second time"


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_an_expert_that_real_numbers_choose_is_in_the_graph(look):
    assert layers_run(Routed(look), torch.ones(2, 3)) == {"gate", "first"}


def test_masks_may_choose_another_expert():
    model, x = Routed(LOOKS["item"]), torch.ones(2, 3)
    masks = {"gate": {"weight": np.zeros((1, 3), bool), "bias": np.zeros(1, bool)}}

    trace = TorchAdapter(model).trace(x, masks)

    assert {node.layer for node in trace.graph.nodes if node.kind == "linear"} == {"gate", "second"}
    np.testing.assert_array_equal(trace.outputs[0], model.second(x).detach().numpy())


def test_looking_at_an_input_needs_no_real_numbers_of_the_model():
    model = Routed(lambda gate: True)
    model.forward = lambda x: model.first(x) if x.sum().item() > 0 else model.second(x)

    assert layers_run(model, torch.ones(2, 3)) == {"first"}


@pytest.mark.parametrize("wrong", [nn.Conv2d(4, 2, 3), nn.Linear(3, 2), nn.LayerNorm(7), nn.BatchNorm2d(4)])
def test_layers_that_do_not_fit_fail_although_no_number_is_computed(wrong):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), wrong)

    with pytest.raises(TraceError, match="1: the model failed on the example inputs"):
        TorchAdapter(model).trace(torch.ones(2, 3, 8, 8), {})


def test_proposed_masks_of_rows_take_the_memory_of_the_rows():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

    masks = L1NormPruner(model, [{"op_names": ["0"], "sparsity": 0.5}], example_inputs=torch.ones(1, 8)).propose()

    assert masks["0"]["weight"].shape == (6, 8)
    assert masks["0"]["weight"].strides[1] == 0


def test_the_masks_of_a_compressed_model_are_the_users_to_change():
    model, x = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), torch.ones(1, 8)
    _, masks = L1NormPruner(model, [{"op_names": ["0"], "sparsity": 0.5}], example_inputs=x).compress()

    masks["0"]["weight"][:] = masks["0"]["bias"][:] = True
    masks["0"]["weight"][0] = masks["0"]["bias"][0] = False

    assert nnc.ModelSpeedup(model, x, masks).speedup_model()[0].out_features == 5
