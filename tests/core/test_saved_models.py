"""A saved model comes back in a fresh process with the same outputs, on both frameworks."""

import subprocess
import sys

import numpy as np
import pytest

import nnc
from tests.frameworks import LENET, images

FRESH = """
import sys, numpy as np, nnc
from tests.frameworks import FRAMEWORKS, images
framework = FRAMEWORKS[sys.argv[1]]
model = nnc.load(sys.argv[2], model=lambda: framework.build(sys.argv[3]))
np.save(sys.argv[2] + "/outputs.npy", framework.run(model, images()))
"""


def compressed(framework, name="lenet"):
    return nnc.compress(framework.build(name), LENET, framework.inputs(images()))


def test_a_small_model_loads_in_a_fresh_process(framework, tmp_path):
    for name in framework.lenets:
        found = compressed(framework, name)
        small = found.speedup()
        found.save(tmp_path / name)

        subprocess.run([sys.executable, "-c", FRESH, framework.name, str(tmp_path / name), name], check=True)

        np.testing.assert_allclose(np.load(tmp_path / name / "outputs.npy"), framework.run(small, images()), rtol=1e-6, atol=1e-6)


def test_a_masked_model_loads_masked(framework, tmp_path):
    found = compressed(framework)
    found.save(tmp_path)

    loaded = nnc.load(tmp_path, framework.build("lenet"))

    np.testing.assert_allclose(framework.run(loaded, images()), framework.run(found.model, images()), rtol=1e-6, atol=1e-6)


def test_a_model_cut_twice_loads(framework, tmp_path):
    found = compressed(framework)
    again = nnc.compress(found.speedup(), LENET, framework.inputs(images()))
    small = again.speedup()
    again.save(tmp_path)

    loaded = nnc.load(tmp_path, framework.build("lenet"))

    assert framework.count(loaded) == framework.count(small) < 40_000
    np.testing.assert_allclose(framework.run(loaded, images()), framework.run(small, images()), rtol=1e-6, atol=1e-6)


def test_another_architecture_is_refused(framework, tmp_path):
    found = compressed(framework)
    found.speedup()
    found.save(tmp_path)

    with pytest.raises(nnc.ConfigError, match="another architecture than the saved one"):
        nnc.load(tmp_path, framework.build("residual"))


def test_another_framework_is_refused(framework, tmp_path):
    from tests.frameworks import FRAMEWORKS

    compressed(framework).save(tmp_path)
    (other,) = FRAMEWORKS.keys() - {framework.name}

    with pytest.raises(nnc.StorageError, match="the model given is of"):
        nnc.load(tmp_path, FRAMEWORKS[other].build("lenet"))


def test_speedup_gives_the_original_back_and_keeps_the_small_model(framework):
    found = compressed(framework)
    before = framework.run(framework.build("lenet"), images())

    assert found.speedup() is found.model
    np.testing.assert_array_equal(framework.run(found.original, images()), before)
    assert found.report().to_dict()["parameters"][0] == 431_080
