"""Networks that torch and Keras export as ONNX files: half of what can leave does, exactly, and onnx and ONNX Runtime accept the rest."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")


def from_torch(model, inputs, optimize):
    """Export a torch model; return the ModelProto and its inputs as arrays, by name."""
    for part in model.modules():  # T5's two stacks have configs of their own
        if getattr(getattr(part, "config", None), "use_cache", False):
            part.config.use_cache = False
    named = inputs if isinstance(inputs, dict) else {}
    positional = () if named else inputs if isinstance(inputs, tuple) else (inputs,)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        options = {"dynamo": True, "optimize": optimize, "external_data": False, "verbose": False, "opset_version": 20}
        torch.onnx.export(model.eval(), positional, kwargs=named, **options).save(Path(folder) / "model.onnx")
        proto = onnx.load(Path(folder) / "model.onnx")
    names = [given.name for given in proto.graph.input]
    arrays = [named[name] for name in names] if named else positional
    return proto, {name: array.numpy() for name, array in zip(names, arrays, strict=True)}


def from_keras(model, inputs):
    """Export a Keras model through tf2onnx; return the ModelProto and its inputs."""
    np.object = object  # tf2onnx was written for an older NumPy
    import tensorflow as tf
    import tf2onnx

    inputs = inputs if isinstance(inputs, dict) else {"image": inputs}
    specs = [tf.TensorSpec(array.shape, array.dtype, name=name) for name, array in inputs.items()]
    call = tf.function(lambda *arrays: model(arrays[0] if len(arrays) == 1 else dict(zip(inputs, arrays, strict=True)), training=False))
    proto, _ = tf2onnx.convert.from_function(call, input_signature=specs, opset=17)
    return proto, {given.name: array for given, array in zip(proto.graph.input, inputs.values(), strict=True)}


def through_nnc(model, inputs):
    """Export a large Keras model as nnc does: tf2onnx by itself takes more than 17 GB for a BERT."""
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(nnc.export(model, Path(folder) / "model.onnx", inputs).path), inputs


def runtime(model, inputs):
    """Return what plain ONNX Runtime gives."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [array for array in session.run(None, inputs) if array.dtype.kind == "f"]


def apart(left, right):
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(left, right, strict=True))


def parameters(model):
    return sum(array.size for array in adapter_for(model).tensors().values())


def require_exact(model, inputs):
    """Prune by half and shrink; check the result; return the small model and the fraction of the parameters that is left."""
    whole = runtime(model, inputs)
    masked, masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=inputs).compress()
    expected = runtime(masked, inputs)
    speedup = nnc.ModelSpeedup(model, inputs, masks)
    small = speedup.speedup_model()
    onnx.checker.check_model(small)
    found = runtime(small, inputs)
    assert apart(expected, found) <= 1e-5
    assert apart(whole, expected) > 1e-3
    assert not speedup.plan.kept
    return small, parameters(small) / parameters(model)


def weights(model):
    return {layer.name: layer.parameters["weight"] for layer in nnc.layers(model) if layer.prunable}


#: What an exporter makes of a module that has no operation of its own in ONNX: einsum, group norm, sequences, packed projections.
QUICK = {"einsum-heads": 0.55, "einsum-two-heads": 0.55, "group-norm": 0.32, "shufflenet-v2": 0.65, "multihead-attention": 0.32}
QUICK |= {"lstm": 0.4, "lstm-both-ways": 0.4, "gru": 0.4}


def of_zoo(name):
    from tests.zoo.test_torch_zoo import made

    return made(name)


@pytest.mark.parametrize("optimize", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", QUICK)
def test_a_network_exported_by_torch_is_halved(name, optimize):
    _, left = require_exact(*from_torch(*of_zoo(name), optimize))

    assert left <= QUICK[name]


ARCHITECTURES = (
    ["resnet", "mobilenet-v2", "efficientnet", "convnext", "regnet", "vit"],
    ["bert-sdpa", "roberta", "albert", "gpt2", "llama", "whisper", "bart", "t5"],
)


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("name", [*ARCHITECTURES[0], *ARCHITECTURES[1]])
def test_an_architecture_exported_by_torch_is_halved(name, optimize):
    model, inputs = of_zoo(name)
    if name == "t5":
        model.set_attn_implementation("eager")  # torch 2.13 fails to export the other
    small, left = require_exact(*from_torch(model, inputs, optimize))

    assert left <= 0.7
    if name == "t5" and not optimize:  # else the names of what is fused are lost
        assert weights(small)["decoder.block.0.layer.1.EncDecAttention.q"] == (32, 64)


def small_keras_bert():
    import keras_hub

    sizes = {"num_layers": 1, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64, "max_sequence_length": 16}
    return keras_hub.models.BertBackbone(vocabulary_size=50, **sizes)


def keras_tokens(vocabulary, length):
    draw = np.random.default_rng(0).integers(1, vocabulary, (2, length)).astype("int32")
    return {"token_ids": draw, "segment_ids": np.zeros_like(draw), "padding_mask": np.ones_like(draw)}


def require_half_of_the_heads(small, heads, size):
    ends = ("query_1", "key_1", "value_1", "query_dense", "key_dense", "value_dense")
    found = {name: shape for name, shape in weights(small).items() if name.endswith(ends)}
    assert found
    assert {shape[0] for shape in found.values()} == {heads // 2 * size}


def test_a_keras_bert_loses_heads_and_neurons():
    pytest.importorskip("keras_hub")
    pytest.importorskip("tf2onnx")
    from tests.zoo_keras.architectures import randomise

    small, left = require_exact(*from_keras(randomise(small_keras_bert()), keras_tokens(50, 8)))

    assert left <= 0.7
    require_half_of_the_heads(small, 4, 8)


def test_a_keras_network_is_halved_although_its_batch_norms_are_scales_and_shifts():
    pytest.importorskip("tf2onnx")
    import keras
    from keras import layers

    from tests.zoo_keras.architectures import noise, randomise

    given = keras.Input((12, 12, 3), batch_size=2)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(given)))
    y = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.Add()([layers.BatchNormalization()(layers.Conv2D(8, 1)(y)), x])
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.MaxPooling2D()(x))
    model = randomise(keras.Model(given, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))))

    _, left = require_exact(*from_keras(model, noise(2, 12, 12, 3)))

    assert left <= 0.4


def full_torch(name):
    from tests.adapters.onnx_nets import randomised

    made = {
        "resnet-50": (hf.ResNetForImageClassification, hf.ResNetConfig, lambda: torch.randn(2, 3, 224, 224)),
        "mobilenet-v2": (hf.MobileNetV2ForImageClassification, hf.MobileNetV2Config, lambda: torch.randn(2, 3, 224, 224)),
        "bert-base": (hf.BertModel, hf.BertConfig, lambda: torch.randint(5, 9000, (2, 16))),
    }
    model, config, inputs = made[name]
    torch.manual_seed(0)
    return randomised(model(config())), inputs()


#: network -> the largest fraction of its parameters that may be left; BERT's embeddings, a fifth of it, stay.
FULL = {"resnet-50": 0.26, "mobilenet-v2": 0.27, "bert-base": 0.62}
FULL_KERAS = {"ResNet50": 0.28, "MobileNetV2": 0.35, "BertBackbone": 0.62}


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("name", FULL)
def test_a_network_of_full_size_exported_by_torch_is_halved(name, optimize):
    small, left = require_exact(*from_torch(*full_torch(name), optimize))

    assert left <= FULL[name]
    if name == "bert-base":
        assert weights(small)["encoder.layer.0.attention.self.query"] == (384, 768)
        assert weights(small)["encoder.layer.11.intermediate.dense"] == (1536, 768)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_KERAS)
def test_a_network_of_full_size_exported_by_keras_is_halved(name):
    pytest.importorskip("keras_hub")
    pytest.importorskip("tf2onnx")
    import keras
    import keras_hub

    from tests.zoo_keras.architectures import noise, randomise

    if name == "BertBackbone":
        sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072, "max_sequence_length": 512}
        model, inputs = keras_hub.models.BertBackbone(vocabulary_size=30522, **sizes), keras_tokens(30522, 16)
    else:
        model = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3), classifier_activation=None)
        inputs = noise(2, 224, 224, 3)

    export = through_nnc if name == "BertBackbone" else from_keras
    small, left = require_exact(*export(randomise(model), inputs))

    assert left <= FULL_KERAS[name]
    if name == "BertBackbone":
        require_half_of_the_heads(small, 12, 64)
