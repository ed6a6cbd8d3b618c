"""A BERT of keras_hub as a file: its weights by name, its exact GELU, and int8 with one grid for query, key and value."""

import keras
import numpy as np
import onnx
import pytest

import nnc
from nnc.views import Site

keras_hub = pytest.importorskip("keras_hub")

ATTENTION = "transformer_layer_0.self_attention_layer"
HEADS = [f"{ATTENTION}.{name}_dense" for name in ("query", "key", "value")]
DENSE = [*HEADS, f"{ATTENTION}.output_dense"]
DENSE += ["transformer_layer_0._feedforward_intermediate_dense", "transformer_layer_0._feedforward_output_dense", "pooled_dense"]


@pytest.fixture(scope="module")
def bert():
    keras.utils.set_random_seed(0)
    sizes = {"vocabulary_size": 200, "num_heads": 4, "hidden_dim": 128, "intermediate_dim": 256, "max_sequence_length": 12}
    model = keras_hub.models.BertBackbone(num_layers=1, **sizes)
    for layer in model.transformer_layers:
        layer.activation = layer._feedforward_intermediate_dense.activation = keras.activations.gelu
    draw = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name == "bias":
            variable.assign(draw.normal(0, 0.1, variable.shape))
    ids = draw.integers(0, 200, (4, 12)).astype("int32")
    return model, {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": np.ones_like(ids)}


def test_the_float_file_has_gelu_as_one_operation_and_weights_by_name(bert, tmp_path):
    result = nnc.export(bert[0], tmp_path / "bert.onnx", bert[1])

    graph = onnx.load(tmp_path / "bert.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert result.difference < 1e-5
    assert (kinds.count("Gelu"), kinds.count("Erf"), kinds.count("LayerNormalization")) == (1, 0, 3)
    assert {f"{name}.weight" for name in [*DENSE, "token_embedding"]} <= {tensor.name for tensor in graph.initializer}
    assert [given.name for given in graph.input] == ["token_ids", "segment_ids", "padding_mask"]


def test_int8_computes_every_product_in_integers_and_looks_rows_up_in_bytes(bert, tmp_path):
    entries = [{"algorithm": "ptq", "op_types": ["Linear"]}, {"algorithm": "ptq", "op_types": ["Embedding"], "quant_types": ["weight"]}]
    c = nnc.compress(bert[0], entries, example_inputs=bert[1])

    result = c.export(tmp_path / "bert.onnx", force=True)
    c.unwrap()

    kernels = {one.layer: one.kernel for one in result.placed}
    assert {kernels[name] for name in DENSE} <= {"MatMulIntegerToFloat", "QGemm"}
    assert kernels["token_embedding"] == "Gather"
    assert result.difference < 0.02
    graph = onnx.load(tmp_path / "bert.onnx").graph
    weights = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    readers = {weights.get(node.input[1], ""): node.input[0] for node in graph.node if node.op_type == "MatMul"}
    assert len({readers[f"{name}.weight.int8"] for name in HEADS}) == 1


@pytest.mark.parametrize("algorithm", ["ptq", "qat_lsq"])
def test_query_key_and_value_share_one_grid_of_their_input(bert, algorithm):
    c = nnc.compress(bert[0], [{"algorithm": algorithm, "op_types": ["Linear"]}], example_inputs=bert[1])
    (quantizer,) = c.quantizers
    grids = quantizer.grids()
    c.unwrap()

    first, *others = (grids[Site(name, "input")] for name in HEADS)
    assert all(first.same(other) for other in others)
    assert not first.same(grids[Site(f"{ATTENTION}.output_dense", "input")])
