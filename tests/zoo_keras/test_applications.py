"""keras.applications with random weights."""

import gc

import keras
import pytest

import nnc
from tests.zoo_keras.architectures import APPLICATIONS, application
from tests.zoo_keras.checks import assert_exact, difference, pruned, run

QUICK = ("MobileNetV2", "ConvNeXtTiny")


@pytest.fixture(autouse=True)
def free_memory():
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in APPLICATIONS])
def test_it_is_half_as_wide_and_computes_the_same(name, tmp_path):
    case = pruned(*application(name))

    assert_exact(case, left=APPLICATIONS[name][1])

    expected = run(case.small, case.x)
    nnc.save(case.small, tmp_path / "nnc")
    assert difference(expected, run(nnc.load(tmp_path / "nnc", model=lambda: fresh(name)), case.x)) <= 1e-6


def fresh(name):
    """Build the model with the names that Keras gives in a new process: its counters go on else (conv2d_95 for conv2d_1)."""
    keras.backend.clear_session()
    return application(name)[0]


@pytest.mark.parametrize("name", ["MobileNetV2", pytest.param("InceptionV3", marks=pytest.mark.slow)])
def test_a_graph_of_keras_own_layers_loads_from_its_own_format(name, tmp_path):
    case = pruned(*application(name))
    expected = run(case.small, case.x)

    case.small.save(tmp_path / "small.keras")

    assert difference(expected, run(keras.models.load_model(tmp_path / "small.keras"), case.x)) <= 1e-6
