"""A copied module is what copy.deepcopy gives, and shares nothing with the original but what the memo says."""

import torch
from torch import nn

from nnc_torch.copies import copied


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.attention = nn.MultiheadAttention(4, 2)  # it has a __setstate__ of its own
        self.notes = {"widths": [3, 3]}
        self.again = self.first
        self.forward = self.other

    def other(self, x):
        return self.second(self.first(x))


def test_ties_shared_modules_and_bound_methods_come_through():
    model = Tied()

    twin = copied(model, {})

    assert type(twin) is Tied
    assert twin.again is twin.first is not model.first
    assert twin.second.weight is twin.first.weight is not model.first.weight
    assert twin.forward.__self__ is twin
    assert twin.notes == model.notes and twin.notes["widths"] is not model.notes["widths"]
    x = torch.randn(2, 3)
    assert torch.equal(twin(x), model(x))
    assert list(twin.state_dict()) == list(model.state_dict())


def test_hooks_are_copied_not_shared():
    model = nn.Linear(2, 2)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))

    twin = copied(model, {})
    twin._forward_hooks.clear()
    model(torch.ones(1, 2))

    assert calls == [1]


def test_what_the_memo_names_is_not_copied():
    model = nn.Linear(2, 2)
    other = nn.Parameter(torch.zeros(1, 2))

    twin = copied(model, {id(model.weight): other})

    assert twin.weight is other
