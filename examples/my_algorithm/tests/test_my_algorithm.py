"""The plug-in keeps nnc's contract, and its score is what its docstring says."""

import nnc.testing
from my_algorithm import VariancePruner


def test_the_pruner_keeps_the_contract_on_every_framework():
    nnc.testing.check_pruner(VariancePruner)


def test_nnc_finds_the_plugin_through_its_entry_point():
    assert "variance" in {algorithm.name for algorithm in nnc.algorithms()}
