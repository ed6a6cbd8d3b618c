"""Numbers by name, and architectures from plain data."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import StorageError
from nnc_torch.adapter import TorchAdapter


def test_bfloat16_survives_as_bits():
    source, target = (nn.Linear(3, 2).to(torch.bfloat16) for _ in range(2))

    TorchAdapter(target).load_tensors(TorchAdapter(source).tensors())

    assert torch.equal(target.weight, source.weight)


def test_a_tied_parameter_is_stored_once():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight

    assert list(TorchAdapter(model).tensors()) == ["0.weight"]


def test_wrong_tensors_are_all_named_and_nothing_is_set():
    model = nn.Linear(3, 2)
    before = model.bias.detach().clone()

    with pytest.raises(StorageError, match=r"no wieght; nearest: 'weight'.*weight is missing") as caught:
        TorchAdapter(model).load_tensors({"bias": np.zeros(3, "float32"), "wieght": np.zeros((2, 3), "float32")})

    assert "bias has shape (3,), the model's has (2,)" in str(caught.value)
    assert torch.equal(model.bias, before)


def test_a_model_of_the_users_own_has_no_blueprint():
    assert TorchAdapter(nn.Linear(3, 2)).blueprint() is None


def test_a_shrunk_transformers_model_loads_without_its_builder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2])
    model, x = transformers.ResNetForImageClassification(config).eval(), torch.randn(2, 3, 32, 32)
    stays = np.arange(6) % 2 == 0
    name = "resnet.encoder.stages.1.layers.1.layer.0"
    masks = {
        f"{name}.convolution": {"weight": np.broadcast_to(stays.reshape(-1, 1, 1, 1), (6, 24, 1, 1))},
        f"{name}.normalization": {"weight": stays, "bias": stays},
    }
    small = nnc.ModelSpeedup(model, x, masks).speedup_model()

    nnc.save(small, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small")

    assert loaded.get_submodule(f"{name}.convolution").out_channels == 3
    assert json.dumps(TorchAdapter(small).blueprint())
    assert np.array_equal(TorchAdapter(loaded).run(x)[0], TorchAdapter(small).run(x)[0])
