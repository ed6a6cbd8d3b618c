"""What a user changes in a training loop of their own, counted, and all kinds of algorithm in it at the same time."""

import difflib
import warnings

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.masks import unmasked
from nnc.registry import adapter_for

IMAGES = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
LABELS = (IMAGES[:, 0] > 0).astype("int64")
CONFIG = [
    {"algorithm": "l1_norm", "op_names": ["first"], "sparsity": 0.25},
    {"algorithm": "movement", "op_names": ["second"], "sparsity": 0.5, "score_rate": 0.1},
    {"algorithm": "kl", "temperature": 2, "weight": 1},
    {"algorithm": "qat_ste", "op_types": ["Linear"], "calib_steps": 2},
]

TORCH = """
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(20):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
"""
TORCH_WITH_NNC = """
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
c = nnc.compress(model, config, images, optimizer=optimizer, trainer=trainer)
for step in range(20):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss = c.loss(loss)
    loss.backward()
    optimizer.step()
"""
KERAS = """
model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images, labels, epochs=10, batch_size=16, verbose=0)
"""
KERAS_WITH_NNC = """
c = nnc.compress(model, config, images, trainer=trainer)
model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(images, labels, epochs=10, batch_size=16, verbose=0)
"""


def changed(before, after):
    """Count the lines that are added, and those taken away."""
    lines = list(difflib.ndiff(before.strip().splitlines(), after.strip().splitlines()))
    return sum(line.startswith("+ ") for line in lines), sum(line.startswith("- ") for line in lines)


def torch_names():
    import torch

    torch.manual_seed(0)
    layers = {"first": torch.nn.Linear(8, 16), "relu": torch.nn.ReLU(), "second": torch.nn.Linear(16, 12), "relu2": torch.nn.ReLU()}
    model = torch.nn.Sequential()
    for name, layer in {**layers, "last": torch.nn.Linear(12, 2)}.items():
        model.add_module(name, layer)
    return {"torch": torch, "F": torch.nn.functional, "model": model, "images": torch.tensor(IMAGES), "labels": torch.tensor(LABELS)}


def keras_names():
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "relu", name="first"), keras.layers.Dense(12, "relu", name="second")]
    model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(2, name="last")])
    return {"keras": keras, "model": model, "images": IMAGES, "labels": LABELS}


NAMES = {"torch": torch_names, "keras": keras_names}
LOOPS = {"torch": TORCH_WITH_NNC, "keras": KERAS_WITH_NNC}


@pytest.fixture(name="names")
def give_names(framework):
    """Run the user's loop with nnc's lines in it, and give its names."""
    names = {"nnc": nnc, "config": CONFIG, **NAMES[framework.name]()}
    names["trainer"] = nnc.Trainer([(names["images"], names["labels"])], progress=False)
    names["before"] = {layer.name: to_numpy(layer.weight).copy() for layer in nnc.layers(names["model"]) if layer.prunable}
    exec(LOOPS[framework.name], names)
    return names


def test_a_torch_loop_changes_in_two_added_lines():
    assert changed(TORCH, TORCH_WITH_NNC) == (2, 0)


def test_a_keras_script_changes_in_one_added_line():
    assert changed(KERAS, KERAS_WITH_NNC) == (1, 0)


def test_masks_movement_distillation_and_a_grid_train_together(names, framework):
    compressed, model = names["c"], names["model"]

    after = {layer.name: to_numpy(layer.weight) for layer in nnc.layers(model) if layer.prunable}
    assert compressed.model is model
    assert all((after[name] != names["before"][name]).any() for name in after)
    assert (~compressed.masks["first"]["bias"]).sum() == 4
    assert (~compressed.finish()["second"]["bias"]).sum() == 6
    accuracy = (np.asarray(framework.run(model, IMAGES) if framework.name == "torch" else model(IMAGES)).argmax(1) == LABELS).mean()
    assert accuracy > 0.8


def test_what_was_trained_together_is_cut_and_exported_on_its_grid(names, framework, tmp_path):
    pytest.importorskip("onnxruntime")
    compressed = names["c"]

    small = compressed.speedup()
    exported = compressed.export(tmp_path / "small.onnx", force=True)  # so small a net is no faster in integers

    widths = {layer.name: tuple(to_numpy(layer.weight).shape) for layer in nnc.layers(small) if layer.prunable}
    assert widths == {"first": (12, 8), "second": (6, 12), "last": (2, 6)}
    assert (tmp_path / "small.onnx").is_file()
    assert exported.difference < 2 / 255  # two steps of the grid


def test_saving_in_the_middle_of_training_keeps_weights_and_masks(names, framework, tmp_path):
    compressed = names["c"]
    with unmasked(adapter_for(names["model"])):
        stored = adapter_for(names["model"]).tensors()

    compressed.save(tmp_path / "saved")
    loaded = nnc.load(tmp_path / "saved", model=NAMES[framework.name]()["model"])

    adapter = adapter_for(loaded)
    assert adapter.views() == {}
    np.testing.assert_array_equal(adapter.masks()["first"]["weight"], compressed.masks["first"]["weight"])
    assert set(adapter.tensors()) == set(stored)
    for name, array in adapter.tensors().items():
        np.testing.assert_array_equal(array, stored[name], err_msg=name)
    assert names["c"].quantizers and adapter_for(names["model"]).views() != {}


def test_what_a_second_config_takes_off_is_named(framework):
    model, images = (NAMES[framework.name]()[name] for name in ("model", "images"))
    nnc.compress(model, CONFIG[1:3], images)

    with pytest.warns(UserWarning, match=r"model: movement of an earlier nnc\.compress has been taken off.*one config_list"):
        nnc.compress(model, CONFIG[2:3], images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nnc.compress(model, CONFIG[2:3], images)  # the same again begins again
