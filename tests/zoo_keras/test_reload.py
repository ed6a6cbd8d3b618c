"""Small Keras models come back in a fresh process: from nnc's folder with the original code, and as SavedModel with none.

One process loads all that a test has saved, so that TensorFlow is imported once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import nnc
from nnc_pruning import L1NormPruner
from tests.zoo_keras import networks
from tests.zoo_keras.architectures import APPLICATIONS, BACKBONES, application, backbone
from tests.zoo_keras.checks import run

NETWORKS = [network.__name__ for network in networks.NETWORKS]

FRESH = """
import json, sys
import numpy as np
import nnc
from nnc.registry import adapter_for
from tests.zoo_keras.test_reload import original
for name, folder in json.load(open(sys.argv[1])):
    inputs = original(name)[1]
    model = nnc.load(folder, model=lambda: original(name)[0])
    np.savez(folder + "/outputs.npz", *adapter_for(model).run(inputs))
"""

SERVED = """
import json, sys
import numpy as np
import tensorflow as tf
for name, folder in json.load(open(sys.argv[1])):
    given = np.load(folder + "/inputs.npz")
    values = [given[key] for key in given.files]
    if all(key.startswith("arr_") for key in given.files):
        inputs = values[0] if len(values) == 1 else values
    else:
        inputs = dict(zip(given.files, values))
    saved = tf.saved_model.load(folder + "/saved")
    np.savez(folder + "/served.npz", *[np.asarray(each) for each in tf.nest.flatten(saved.serve(inputs))])
assert "nnc" not in sys.modules
"""


def original(name):
    """Return the original model, with the names that Keras gives in a new process, and example inputs."""
    keras.backend.clear_session()
    if name in APPLICATIONS:
        return application(name)
    return backbone(name) if name in BACKBONES else getattr(networks, name)()


def shrunk(name):
    """Return the small model and its inputs: half of every layer leaves, a quarter where the path has a 1, so heads differ."""
    model, inputs = original(name)
    names = [layer.name for layer in nnc.layers(model) if layer.prunable and re.search(r"(^|[._])1([._]|$)", layer.name)]
    entries = [{"sparsity": 0.5}] + ([{"op_names": names, "sparsity": 0.25}] if names else [])
    masks = L1NormPruner(model, entries, example_inputs=inputs).propose()
    return nnc.ModelSpeedup(model, inputs, masks).speedup_model(), inputs


def require_same_in_fresh_processes(names, folder):
    jobs, before = [(name, str(folder / name)) for name in names], {}
    for name in names:
        small, inputs = shrunk(name)
        before[name] = run(small, inputs)
        nnc.save(small, folder / name)
        small.export(str(folder / name / "saved"), verbose=False)
        given = inputs if isinstance(inputs, (dict, list)) else [inputs]
        np.savez(folder / name / "inputs.npz", **given) if isinstance(given, dict) else np.savez(folder / name / "inputs.npz", *given)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    for code, results in ((FRESH, "outputs.npz"), (SERVED, "served.npz")):
        subprocess.run([sys.executable, "-c", code, str(folder / "jobs.json")], check=True)
        for name, expected in before.items():
            found = list(np.load(folder / name / results).values())
            assert len(found) == len(expected)
            for left, right in zip(expected, found, strict=True):
                scale = float(np.abs(left).max())
                np.testing.assert_allclose(right, left, rtol=0, atol=1e-6 * scale, err_msg=f"{name}: {results}")


@pytest.mark.slow
def test_every_small_network_comes_back_in_fresh_processes(tmp_path):
    require_same_in_fresh_processes(NETWORKS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("names", [list(BACKBONES), *([name] for name in APPLICATIONS)], ids=str)
def test_every_small_architecture_comes_back_in_fresh_processes(names, tmp_path):
    if names == list(BACKBONES):
        pytest.importorskip("keras_hub")
    require_same_in_fresh_processes(names, tmp_path)


def test_layers_keep_different_numbers_of_heads():
    small, _ = shrunk("attention")

    assert [block.attention.num_heads for block in small.blocks] == [2, 3]
