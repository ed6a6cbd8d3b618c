"""The loss of a loop of the user's own is refused before it spoils the weights, and a GradScaler keeps its infinite ones."""

import pytest
import torch

import nnc
from nnc_torch.adapter import TorchAdapter
from tests.adapters.torch_views import Match, one_weight

ONES = torch.ones(1, 1)


def student_of(teacher_weight=5.0):
    adapter = TorchAdapter(one_weight(3.0))
    adapter.set_objectives([Match()], one_weight(teacher_weight))
    return adapter


@pytest.mark.parametrize(("loss", "words"), [(torch.ones(3), r"a tensor of shape \(3,\)"), ("low", "a str")])
def test_a_loss_that_is_no_scalar_is_refused(loss, words):
    adapter = student_of()
    adapter.model(ONES)

    with pytest.raises(nnc.TrainingError, match=rf"loss: it is {words}; one number is needed, as loss\.mean\(\) gives"):
        adapter.total(loss)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_loss_that_is_not_finite_is_refused(number):
    adapter = student_of()

    loss = adapter.model(ONES).sum() * float(number)

    with pytest.raises(nnc.TrainingError, match=f"loss: it is {number}; every layer's output is finite"):
        adapter.total(loss)


def test_the_layer_and_the_batch_of_a_loss_that_is_not_finite_are_named():
    adapter = student_of()

    loss = adapter.model(ONES / 0).sum()

    with pytest.raises(nnc.TrainingError, match="the output of '0' was the first that is not finite, and the batch itself has NaN"):
        adapter.total(loss)


def test_a_term_that_is_not_finite_is_named():
    adapter = student_of(float("inf"))

    loss = adapter.model(ONES).sum()

    with pytest.raises(nnc.TrainingError, match=r"loss: with its terms it is inf: match\.mse is inf"):
        adapter.total(loss)


def test_an_infinite_loss_in_float16_is_left_to_the_scaler():
    adapter = student_of()
    optimizer = torch.optim.SGD(adapter.model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu")
    with torch.autocast("cpu", torch.float16):
        loss = adapter.model(ONES).float().sum() * float("inf")

    scaler.scale(adapter.total(loss)).backward()
    scaler.step(optimizer)
    scaler.update()

    assert adapter.model[0].weight.item() == 3.0


def test_in_evaluation_any_loss_comes_back():
    adapter = student_of()
    adapter.model.eval()
    losses = torch.full((3,), float("nan"))

    assert adapter.total(losses) is losses
