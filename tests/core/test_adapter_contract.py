"""Both adapters keep the contract that a third party's adapter is held to."""

import pytest

import nnc.testing
from nnc.registry import registry
from tests.frameworks import FRAMEWORKS, images

NETWORKS = [(framework, name) for framework, found in FRAMEWORKS.items() for name in (*found.lenets, "residual")]


@pytest.mark.parametrize(("framework", "name"), NETWORKS)
def test_an_adapter_keeps_its_contract_on_the_tests_networks(framework, name):
    found = FRAMEWORKS[framework]
    batch = images(2, 3, 12) if name == "residual" else images()

    nnc.testing.check_adapter(lambda: (found.build(name), found.inputs(batch)))


@pytest.mark.parametrize("framework", sorted(registry().examples))
def test_an_adapter_keeps_its_contract_on_its_own_example(framework):
    nnc.testing.check_adapter(registry().examples[framework])
