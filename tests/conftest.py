"""What tests share: the NumPy framework for the core's own tests, the networks that both frameworks build."""

import pluggy
import pytest

import nnc.registry
import nnc_pruning
from nnc import hookspecs
from tests import fakes


@pytest.fixture(name="fake_framework")
def give_fake_framework(monkeypatch):
    """Let the registry hold the fake framework and the built-in pruners, and nothing else."""
    manager = pluggy.PluginManager("nnc")
    manager.add_hookspecs(hookspecs)
    manager.register(fakes, "fakes")
    manager.register(nnc_pruning, "pruning")
    found = nnc.registry.collect(manager)
    monkeypatch.setattr(nnc.registry, "registry", lambda: found)
    return found
