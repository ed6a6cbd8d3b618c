"""The contract suite accepts the built-in pruners and names what a broken one breaks."""

import numpy as np
import pytest

import nnc_pruning
from nnc import testing
from nnc_pruning import L1NormPruner

pytestmark = pytest.mark.usefixtures("fake_framework")


@pytest.mark.parametrize("name", nnc_pruning.__all__)
def test_every_built_in_pruner_keeps_its_promises(name):
    testing.check_pruner(getattr(nnc_pruning, name))


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
