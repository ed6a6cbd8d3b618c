"""A checkpoint of Hugging Face's BERT as a Keras model that computes the same: keras_hub's backbone, filled from the safetensors.

keras_hub's feed-forward layers use the GELU that tanh approximates; BERT was trained with the exact one, which is put in its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
from safetensors.numpy import load_file

Read = Callable[[str], Any]


def bert_classifier(folder: str | Path, length: int, classes: int = 2) -> keras.Model:
    """Return a BERT with a new classifier on its pooler: token_ids, segment_ids and padding_mask in, logits out.

    Sentences may have any number of tokens up to `length`, another number in each batch.
    """
    backbone = bert_backbone(folder, length)
    pooled = keras.layers.Dropout(backbone.dropout, name="dropout")(backbone(backbone.input)["pooled_output"])
    start = keras.initializers.RandomNormal(stddev=0.02)
    logits = keras.layers.Dense(classes, kernel_initializer=start, name="classifier")(pooled)
    return keras.Model(backbone.input, logits, name="bert_classifier")


def bert_backbone(folder: str | Path, length: int) -> keras_hub.models.BertBackbone:
    """Return keras_hub's backbone with the checkpoint's weights, and the position embeddings of the first `length` tokens."""
    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_dim=config["hidden_size"],
        intermediate_dim=config["intermediate_size"],
        dropout=config["hidden_dropout_prob"],
        max_sequence_length=length,
        name="bert",
    )
    tensors = load_file(Path(folder) / "model.safetensors")
    _fill_embeddings(backbone, tensors.__getitem__, length)
    for number, layer in enumerate(backbone.transformer_layers):
        layer.activation = layer._feedforward_intermediate_dense.activation = keras.activations.gelu
        _fill_layer(layer, lambda name, start=f"encoder.layer.{number}.": tensors[start + name])
    _fill_dense(backbone.pooled_dense, tensors.__getitem__, "pooler.dense")
    return backbone


def _fill_embeddings(backbone: Any, read: Read, length: int) -> None:
    backbone.token_embedding.embeddings.assign(read("embeddings.word_embeddings.weight"))
    backbone.position_embedding.position_embeddings.assign(read("embeddings.position_embeddings.weight")[:length])
    backbone.segment_embedding.embeddings.assign(read("embeddings.token_type_embeddings.weight"))
    _fill_norm(backbone.embeddings_layer_norm, read, "embeddings.LayerNorm")


def _fill_layer(layer: Any, read: Read) -> None:
    attention = layer._self_attention_layer
    for name in ("query", "key", "value"):
        _fill_dense(getattr(attention, f"{name}_dense"), read, f"attention.self.{name}")
    _fill_dense(attention.output_dense, read, "attention.output.dense")
    _fill_norm(layer._self_attention_layer_norm, read, "attention.output.LayerNorm")
    _fill_dense(layer._feedforward_intermediate_dense, read, "intermediate.dense")
    _fill_dense(layer._feedforward_output_dense, read, "output.dense")
    _fill_norm(layer._feedforward_layer_norm, read, "output.LayerNorm")


def _fill_dense(layer: Any, read: Read, name: str) -> None:
    """Fill a Dense, or an EinsumDense whose kernel has heads and head sizes where the checkpoint has their product."""
    layer.kernel.assign(read(f"{name}.weight").T.reshape(layer.kernel.shape))
    layer.bias.assign(read(f"{name}.bias").reshape(layer.bias.shape))


def _fill_norm(layer: Any, read: Read, name: str) -> None:
    layer.gamma.assign(read(f"{name}.weight"))
    layer.beta.assign(read(f"{name}.bias"))
