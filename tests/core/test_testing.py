"""The contract suite accepts the built-in pruners and names what a broken one breaks."""

import numpy as np
import pytest

import nnc_pruning
from nnc import testing
from nnc_pruning import L1NormPruner, TaylorFOPruner

pytestmark = pytest.mark.usefixtures("fake_framework")


PRUNERS = [getattr(nnc_pruning, name) for name in nnc_pruning.__all__]


@pytest.mark.parametrize("pruner", [pruner for pruner in PRUNERS if not testing.needs_trainer(pruner)])
def test_every_pruner_that_sees_weights_only_keeps_its_promises(pruner):
    testing.check_pruner(pruner)


def test_a_pruner_that_needs_a_trainer_is_not_tried_where_nothing_trains():
    with pytest.raises(AssertionError, match="no framework with an example network and a trainer of it is installed"):
        testing.check_pruner(TaylorFOPruner)


def broken(**methods):
    return type("Broken", (L1NormPruner,), {"__doc__": "A pruner with a fault.", **methods})


@pytest.mark.parametrize(
    ("methods", "promise"),
    [
        ({"score": lambda self, layer: np.ones(3)}, r"Broken on fake.*one number a granule.*has shape \(3,\)"),
        ({"score": lambda self, layer: np.random.default_rng().random(layer.parameters["weight"][0])}, "give different masks"),
        ({"compress": lambda self: (self.model, {})}, "'conv1' has no masks"),
        ({"unwrap_model": lambda self: self.model}, "unwrap_model\\(\\) changes the model's masks"),
        ({"__doc__": ""}, "docstring"),
    ],
)
def test_a_broken_promise_is_named(methods, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_pruner(broken(**methods))
