"""What a small model has in common with the user's costs no memory, and belongs to each of them alone."""

import copy
import io

import keras
import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch.copies import address, lazily

CONFIG = [{"op_names": ["up"], "sparsity": 0.5}]


class Net(nn.Module):
    """Only `up` and `down` get smaller."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.down, self.head = nn.Embedding(200, 64), nn.Linear(64, 96), nn.Linear(96, 64), nn.Linear(64, 200)

    def forward(self, ids):
        return self.head(self.down(self.up(self.embed(ids)).relu()))


def ids():
    return torch.arange(12).reshape(2, 6)


def small_of(model, inputs):
    masks = L1NormPruner(model, CONFIG, example_inputs=inputs).propose()
    return nnc.ModelSpeedup(model, inputs, masks).speedup_model()


def step(model, optimizer, inputs):
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def numbers(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(model, before):
    return [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])] == []


def test_what_does_not_change_takes_no_memory_of_its_own_in_the_small_model():
    model = Net()

    small = small_of(model, ids())
    small(ids())

    assert address(small.embed.weight) == address(model.embed.weight)
    assert address(small.head.weight) == address(model.head.weight)
    assert small.up.weight.shape == (48, 64)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {}], ids=["foreach", "fused", "default"])
def test_training_one_of_the_two_leaves_the_other_as_it_was(optimizer, options):
    model = Net()
    small = small_of(model, ids())
    before, small_before = numbers(model), numbers(small)

    step(small, optimizer(small.parameters(), 0.1, **options), ids())

    assert same(model, before)
    assert not torch.equal(small.embed.weight, small_before["embed.weight"])

    again = small_of(model, ids())
    again_before = numbers(again)
    step(model, optimizer(model.parameters(), 0.1, **options), ids())

    assert same(again, again_before)
    assert not torch.equal(model.embed.weight, before["embed.weight"])


@pytest.mark.parametrize(
    "write",
    [
        lambda tensor: tensor.data.zero_(),
        lambda tensor: tensor.detach().numpy().fill(0),
        lambda tensor: tensor.detach()[:].zero_(),
        lambda tensor: tensor.detach().copy_(torch.zeros_like(tensor)),
        lambda tensor: tensor.detach().t().view(-1).zero_(),
    ],
    ids=["data", "numpy", "slice", "copy_", "view"],
)
@pytest.mark.parametrize("first", [True, False], ids=["the original", "the copy"])
def test_whatever_writes_to_one_of_two_leaves_the_other_as_it_was(write, first):
    original = nn.Parameter(torch.ones(8192, 1))
    copied = nn.Parameter(lazily(original.detach()))
    written, other = (original, copied) if first else (copied, original)

    write(written)

    assert not written.any()
    assert other.all()


def test_a_lazy_copy_is_saved_pickled_and_copied_as_any_other():
    original = torch.randn(100, 64)
    file = io.BytesIO()

    torch.save(lazily(original), file)
    file.seek(0)

    assert torch.equal(torch.load(file), original)
    assert torch.equal(copy.deepcopy(lazily(original)), original)
    assert torch.equal(lazily(original).share_memory_(), original)


def test_memory_of_others_and_parts_of_larger_tensors_are_copied_at_once():
    array = np.ones((100, 64), "float32")
    given, part = torch.from_numpy(array), torch.ones(200, 64)[:100]

    copies = [lazily(given), lazily(part)]
    array[:] = 0

    assert all(copied.all() for copied in copies)
    assert address(copies[1]) != address(part)


def test_parameters_that_are_tied_through_their_memory_stay_tied():
    model = Net()
    model.head.weight = nn.Parameter(model.embed.weight.detach())

    small = small_of(model, ids())
    with torch.no_grad():
        small.embed.weight.zero_()

    assert not small.head.weight.any()
    assert model.head.weight.any()


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.teacher = Net()
        self.student = small_of(self.teacher, ids())

    def forward(self, ids):
        return self.teacher(ids) + self.student(ids)


def test_a_small_model_is_not_tied_to_its_original():
    model = Both()
    assert address(model.student.embed.weight) == address(model.teacher.embed.weight)

    masks = L1NormPruner(model, [{"op_names": ["student.embed"], "sparsity": 0.5}], example_inputs=ids()).propose()
    small = nnc.ModelSpeedup(model, ids(), masks).speedup_model()

    assert small.student.embed.weight.shape == (200, 32)
    assert small.teacher.embed.weight.shape == (200, 64)


class Marked(nn.Parameter):
    """A parameter of a class of its own, as quantised ones are."""

    def __deepcopy__(self, memo):
        return Marked(self.data.clone(), self.requires_grad)


def test_a_parameter_of_another_class_is_copied_as_that_class_says():
    model = Net()
    model.head.weight = Marked(model.head.weight.detach().clone())

    small = small_of(model, ids())

    assert type(small.head.weight) is Marked
    assert address(small.head.weight) != address(model.head.weight)


def test_training_a_small_keras_model_leaves_the_original_as_it_was():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(200, 64, name="embed"), keras.layers.Dense(96, "relu", name="up")]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(64, name="down"), keras.layers.Dense(200, name="head")])
    x = np.arange(12).reshape(2, 6)
    small = small_of(model, x)
    before = [np.array(weight) for weight in model.get_weights()]

    small.compile("adam", "mse")
    small.fit(x, np.zeros((2, 6, 200)), verbose=0)

    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not np.array_equal(small.get_weights()[0], before[0])
