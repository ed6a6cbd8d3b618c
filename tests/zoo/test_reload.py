"""Small models come back in a fresh process without pickle, and go through torch.export.

One process loads all that a test has saved, so that torch is imported once.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch.inference import run
from tests.zoo.test_torch_zoo import ZOO, made
from tests.zoo.transformers_zoo import TRANSFORMERS

#: Each way in which a small model differs from what its code and configuration say: heads, attributes, new biases, rewritten code.
FEW = ["bert-sdpa", "resnet", "own-heads"]

FRESH = """
import json, sys
import numpy as np, torch
import nnc
from nnc_torch.inference import run
from tests.zoo.test_torch_zoo import ZOO
for name, folder, alone in json.load(open(sys.argv[1])):
    build, inputs = ZOO[name]
    model = nnc.load(folder, model=None if alone else build).eval()
    np.savez(folder + "/outputs.npz", *run(model, inputs()))
"""


def uneven(model):
    """Return a config_list that takes half of every layer, and a quarter of those whose path has a 1: other heads in each layer."""
    entries = [{"sparsity": 0.5}]
    names = [layer.name for layer in nnc.layers(model) if layer.prunable and ".1." in f".{layer.name}."]
    return entries + ([{"op_names": names, "sparsity": 0.25}] if names else [])


def shrunk(name):
    """Return the small model and its example inputs."""
    model, inputs = made(name)
    masks = L1NormPruner(model, uneven(model), example_inputs=inputs).propose()
    return nnc.ModelSpeedup(model, inputs, masks).speedup_model().eval(), inputs


def reloaded(names, folder):
    """Save the small models, load them in one fresh process; return {name: (outputs before, outputs after)}."""
    jobs, before = [], {}
    for name in names:
        small, inputs = shrunk(name)
        before[name] = run(small, inputs)
        nnc.save(small, folder / name)
        jobs.append((name, str(folder / name), name in TRANSFORMERS))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    subprocess.run([sys.executable, "-c", FRESH, str(folder / "jobs.json")], check=True)
    return {name: (before[name], list(np.load(folder / name / "outputs.npz").values())) for name in names}


def require_same(found):
    for name, (before, after) in found.items():
        for left, right in zip(before, after, strict=True):
            np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(left).max())), err_msg=name)


def test_small_models_load_in_a_fresh_process(tmp_path):
    require_same(reloaded(FEW, tmp_path))


@pytest.mark.slow
def test_every_small_model_of_the_zoo_loads_in_a_fresh_process(tmp_path):
    require_same(reloaded(list(ZOO), tmp_path))


def test_layers_keep_different_numbers_of_heads(tmp_path):
    small, inputs = shrunk("bert-sdpa")
    heads = [layer.attention.self.num_attention_heads for layer in small.bert.encoder.layer]
    nnc.save(small, tmp_path)

    again = nnc.load(tmp_path)

    assert heads == [2, 3]
    assert [layer.attention.self.num_attention_heads for layer in again.bert.encoder.layer] == heads
    np.testing.assert_array_equal(run(again.eval(), inputs)[0], run(small, inputs)[0])


def exported_difference(name):
    """Return how far the exported small model's outputs are from its own."""
    small, inputs = shrunk(name)
    positional, named = ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    if getattr(getattr(small, "config", None), "use_cache", False):
        named = {**named, "use_cache": False}
    program = torch.export.export(small, positional, named, strict=False)
    before, after = run(small, inputs), run(program.module(), named if named else positional)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(before, after, strict=False) if a.dtype.kind == "f")


@pytest.mark.parametrize("name", ["bert-sdpa", "own-heads", "group-norm"])
def test_torch_export_takes_small_models(name):
    assert exported_difference(name) <= 1e-6


#: torch.export takes no packed sequences, those of the user's own model neither.
EXPORTED = [name for name in ZOO if name != "packed-lstm"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_torch_export_takes_every_small_model_of_the_zoo(name):
    assert exported_difference(name) <= 1e-6
