"""torch's own attention, whose weights for query, key and value are one, is computed in whole numbers."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.registry import adapter_for
from nnc.views import Site

LAYERS = {"self_attn", "self_attn.out_proj", "linear1", "linear2"}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval(), torch.rand(2, 6, 32)


def run(model, x):
    with torch.no_grad():
        return model.eval()(x).numpy()


def test_an_encoder_layer_is_integer_but_for_its_attention_scores(encoder, tmp_path):
    model, x = encoder
    c = nnc.compress(model, [{"algorithm": "ptq"}], example_inputs=x)

    result = c.export(tmp_path / "encoder.onnx", force=True)

    kernels = {one.layer: one.kernel for one in result.placed}
    assert set(kernels) == LAYERS
    assert set(kernels.values()) <= {"MatMulIntegerToFloat", "QGemm"}
    assert result.difference < 0.02


def test_query_key_and_value_of_an_attention_have_one_grid(encoder):
    model, x = encoder
    c = nnc.compress(model, [{"algorithm": "qat_lsq"}], example_inputs=x)
    grids = {str(site): grid for site, grid in c.quantizers[0].grids().items()}

    assert grids["self_attn.input"].same(grids["self_attn.input:1"])
    assert grids["self_attn.input"].same(grids["self_attn.input:2"])


def test_the_model_computes_as_before_when_its_grids_are_gone(encoder):
    model, x = encoder
    truth = run(model, x)

    nnc.compress(model, [{"algorithm": "ptq"}], example_inputs=x).unwrap()

    assert np.array_equal(run(model, x), truth)
    assert "forward" not in vars(model.self_attn)


def test_what_reaches_the_output_projection_can_be_read(encoder):
    model, x = encoder
    adapter = adapter_for(model)
    sites = [Site("self_attn.out_proj", name) for name in ("input", "output")]

    _, seen = adapter.forward(x, sites)

    weight, bias = model.self_attn.out_proj.weight, model.self_attn.out_proj.bias
    np.testing.assert_allclose(seen[sites[1]].numpy(), (seen[sites[0]] @ weight.T + bias).detach().numpy(), atol=1e-5)
