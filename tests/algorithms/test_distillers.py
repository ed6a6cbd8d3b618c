"""Every distiller that is registered keeps the contract of nnc.testing, on small transformers of both frameworks."""

from functools import partial

import numpy as np
import pytest

import nnc
from nnc import testing
from nnc.objective import Objective
from nnc.registry import registry
from nnc_distillation import KL
from tests.algorithms.distillation_models import BATCH, CLASSES, MODELS, tokens

DISTILLERS = [each.cls for each in registry().algorithms if each.cls.kind == "distill"]


def pair(framework, width=24):
    """Return a student of width 16, a teacher of another, and a trainer on two batches."""
    models, (ids, mask) = MODELS[framework], tokens()
    labels = np.arange(BATCH) % CLASSES
    halves = [slice(0, BATCH // 2), slice(BATCH // 2, BATCH)]
    if framework == "torch":
        import torch

        batches = [{**models.inputs(ids[half], mask[half]), "labels": torch.from_numpy(labels[half])} for half in halves]
        loss, optimizer = None, lambda parameters: torch.optim.Adam(parameters, 1e-3)
    else:
        import keras

        batches = [({name: array[half] for name, array in models.inputs(ids, mask).items()}, labels[half]) for half in halves]
        loss, optimizer = keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda variables: keras.optimizers.Adam(1e-3)
    return models.bert(16), models.bert(width), nnc.Trainer(batches, loss, optimizer, progress=False)


@pytest.mark.parametrize(
    ("distiller", "framework"),
    [
        pytest.param(cls, framework, marks=[pytest.mark.slow] if framework == "keras" else [])  # it compiles a step for each run
        for cls in DISTILLERS
        for framework in MODELS
    ],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
def test_every_distiller_keeps_its_promises(distiller, framework):
    width = 16 if distiller.name == "pkd" else 24  # pkd compares vectors as they are, the others project them

    testing.check_distiller(distiller, on={framework: partial(pair, framework, width)})


def broken(**methods):
    return type("Broken", (KL,), {"__doc__": "A distiller with a fault.", **methods})


class Silent(Objective):
    name = "silent"

    def terms(self, seen, ops):
        return {}


class Forgetful(Objective):
    """A term that depends on Python's own state."""

    name = "kl"
    count = 0

    def terms(self, seen, ops):
        Forgetful.count += 1
        return {"steps": ops.asarray(float(Forgetful.count))}


@pytest.mark.parametrize(
    ("methods", "promise"),
    [
        ({"objectives": lambda self: [Silent()]}, r"Broken on torch: broken promise: the student trains.*a term 'kl' is none of them"),
        ({"objectives": lambda self: [Forgetful()]}, r"a run goes on from its state: .* has the losses"),
        ({"unwrap_model": lambda self: self.adapter.set_masks({}) or self.model}, "gives the student back"),
        ({"__doc__": ""}, "docstring"),
    ],
)
def test_a_broken_promise_of_a_distiller_is_named(methods, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_distiller(broken(**methods), on={"torch": partial(pair, "torch")})
