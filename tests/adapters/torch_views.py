"""Views and objectives small enough to work out by hand, and the networks that they are tried on."""

import numpy as np
import torch
from torch import nn

from nnc.objective import Objective
from nnc.views import Site, Variable, View

OUTPUT = Site("", "output")


class Times(View):
    """x * factor; the factor is trained in the group "factors"."""

    def __init__(self, factor=2.0, name="times", shared=""):
        self.factor, self.name, self.shared = factor, name, shared

    def variables(self):
        return {"factor": Variable(np.float32(self.factor), trainable=True, group="factors", shared=self.shared)}

    def __call__(self, x, state, ops, training):
        return x * state["factor"]


class Plus(View):
    """x + 1: does not commute with `Times`."""

    name = "plus"

    def __call__(self, x, state, ops, training):
        return x + 1


class Rounded(View):
    """round(x), with the straight-through gradient inside [-1, 1] and none outside (Bengio et al. 2013)."""

    name = "rounded"

    def __call__(self, x, state, ops, training):
        return ops.with_gradient(lambda x: (ops.round(x), (x,)), lambda g, x: (ops.where(ops.abs(x) <= 1, g, 0 * g),), x)


class Counted(View):
    """Counts the forward passes in training, as a moving range would follow them."""

    name = "counted"

    def variables(self):
        return {"passes": Variable(np.float32(0))}

    def __call__(self, x, state, ops, training):
        if training:
            state.assign("passes", state["passes"] + 1)
        return x


class Identity(View):
    name = "identity"

    def __call__(self, x, state, ops, training):
        return x


class Wrong(View):
    """Gives another shape."""

    name = "wrong"

    def __call__(self, x, state, ops, training):
        return x[:1]


class Match(Objective):
    """The mean squared difference of one site, times a trained factor on the student's side."""

    name = "match"
    task_weight = 0.5

    def __init__(self, site=OUTPUT):
        self.student = self.teacher = (site,)

    def variables(self):
        return {"factor": Variable(np.float32(1.0), trainable=True, group="projections")}

    def terms(self, seen, ops):
        site = self.student[0]
        return {"mse": ops.mean(ops.square(seen.student[site] * seen.state["factor"] - seen.teacher[site]))}


class Shrinkage(Objective):
    """0.1 * sum |w| of one parameter: reads no teacher."""

    name = "shrinkage"

    def __init__(self, site):
        self.student = (site,)

    def terms(self, seen, ops):
        return {"l1": 0.1 * ops.sum(ops.abs(seen.student[self.student[0]]))}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def one_weight(value=3.0):
    """A linear layer of one weight: y = w x."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(model[0].weight, value)
    return model


def tiny_bert(**options):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    return BertForSequenceClassification(BertConfig(**sizes, max_position_embeddings=16, **options))


def tokens(batch=2, length=5):
    ids = torch.arange(batch * length).reshape(batch, length) % 50
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def state_of(model):
    """What `set_views({})` has to give back."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), type(m).__name__) for m in model.modules()]
    return [(name, id(p)) for name, p in model.named_parameters()], list(model.state_dict()), hooks, sorted(vars(model))
