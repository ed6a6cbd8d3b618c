"""What tests share: the registry of one's own making, and the NumPy framework for the core's own tests."""

from importlib.metadata import EntryPoint

import pytest

import nnc.registry
from tests.frameworks import FRAMEWORKS


@pytest.fixture(name="install")
def give_install(monkeypatch):
    """Return `install(name=module, ...)`: the registry then finds these plug-ins and no others, until the test ends."""

    def install(**plugins):
        entries = [EntryPoint(name, value, "nnc") for name, value in plugins.items()]
        monkeypatch.setattr(nnc.registry, "entry_points", lambda group: entries)
        nnc.registry.registry.cache_clear()

    yield install
    monkeypatch.undo()
    nnc.registry.registry.cache_clear()


@pytest.fixture(name="fake_framework")
def give_fake_framework(install):
    """Let the registry hold the NumPy framework of tests/fakes.py and the built-in pruners, and nothing else."""
    install(fakes="tests.fakes", pruning="nnc_pruning")


@pytest.fixture(name="framework", params=sorted(FRAMEWORKS, reverse=True))
def give_framework(request):
    """Run the test on both frameworks; see tests/frameworks.py."""
    return FRAMEWORKS[request.param]
