"""How much a training step on the grid costs: CPU time of a step with views over one without, interleaved, the median of pairs.

    python benchmarks/qat_step.py --framework torch --model cnn
    python benchmarks/qat_step.py --framework keras --model bert --pairs 10

cnn: 28 x 28, Conv 32, Conv 64, Dense 128, batch 64. bert: 6 layers, width 384, 32 sentences of 64 tokens, as examples/quantize_bert.py
trains; --batch 8 for a small one. One thread, float32, SGD. With --save the result goes to benchmarks/results/qat_step.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import nnc
from nnc.latency import hardware
from nnc.registry import adapter_for


def torch_cnn(batch: int) -> tuple[Any, list[Any]]:
    from torch import nn

    first = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*first, nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, _torch_batch((batch, 1, 28, 28))


def _torch_batch(shape: tuple[int, ...]) -> list[Any]:
    import torch

    return [(torch.randn(shape), torch.arange(shape[0]) % 10)]


def torch_bert(batch: int) -> tuple[Any, list[Any]]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (batch, 64), generator=draw)
    return BertForSequenceClassification(config), [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(batch) % 2}
    ]


def keras_cnn(batch: int) -> tuple[Any, list[Any]]:
    import keras
    from keras import layers

    first = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPool2D(), layers.Conv2D(64, 3, activation="relu"), layers.MaxPool2D()]
    model = keras.Sequential([keras.Input((28, 28, 1)), *first, layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10)])
    return model, [(np.random.default_rng(0).standard_normal((batch, 28, 28, 1)).astype("f4"), np.arange(batch) % 10)]


def keras_bert(batch: int) -> tuple[Any, list[Any]]:
    import keras
    import keras_hub

    sizes = {"vocabulary_size": 30522, "num_heads": 12, "hidden_dim": 384, "intermediate_dim": 1536, "max_sequence_length": 64}
    backbone = keras_hub.models.BertBackbone(num_layers=6, **sizes)
    model = keras.Model(backbone.input, keras.layers.Dense(2)(backbone(backbone.input)["pooled_output"]))
    ids = np.random.default_rng(0).integers(0, 30522, (batch, 64)).astype("int32")
    return model, [({"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": np.ones_like(ids)}, np.arange(batch) % 2)]


BATCH = {"cnn": 64, "bert": 32}
CONFIG = {"cnn": ["Linear", "Conv2d"], "bert": ["Linear"]}
BUILDERS = {("torch", "cnn"): torch_cnn, ("torch", "bert"): torch_bert, ("keras", "cnn"): keras_cnn, ("keras", "bert"): keras_bert}


def trainer(framework: str, data: list[Any]) -> nnc.Trainer:
    if framework == "torch":
        import torch

        loss = None if isinstance(data[0], dict) else torch.nn.functional.cross_entropy
        return nnc.Trainer(data, loss, lambda parameters: torch.optim.SGD(parameters, 1e-4), progress=False)
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return nnc.Trainer(data, loss, lambda variables: keras.optimizers.SGD(1e-4), progress=False)


def ratios(framework: str, model: str, names: list[str], pairs: int, batch: int) -> dict[str, float]:
    """Return the cost of a step with each quantizer over that of a plain one, and that one's CPU seconds."""
    found = {}
    for name in names:
        (plain, data), (other, _) = (BUILDERS[framework, model](batch) for _ in range(2))
        used = trainer(framework, data)
        inputs = {key: value for key, value in data[0].items() if key != "labels"} if isinstance(data[0], dict) else data[0][0]
        nnc.compress(other, [{"algorithm": name, "op_types": CONFIG[model]}], example_inputs=inputs, trainer=used)
        steps = [adapter_for(each).trainer(used.loss, used.optimizer, "float32", 1) for each in (plain, other)]
        for step in steps:
            step(data[0]), step(data[0])
        times = [[_cpu(step, data[0]) for step in steps] for _ in range(pairs)]
        found[name] = statistics.median(second / first for first, second in times)
        found["plain_seconds"] = statistics.median(first for first, _ in times)
        for step in steps:
            step.close()
    return found


def _cpu(step: Any, batch: Any) -> float:
    start = time.process_time()
    step(batch)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("torch", "keras"), default="torch")
    parser.add_argument("--model", choices=("cnn", "bert"), default="cnn")
    parser.add_argument("--algorithms", nargs="+", default=["qat_ste", "qat_lsq"])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--save", action="store_true", help="keep the result in results/qat_step.json")
    parser.add_argument("--batch", type=int, help="samples in a step; 64 for cnn, 32 for bert")
    given = parser.parse_args()
    if given.framework == "torch":
        import torch

        torch.set_num_threads(1)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    batch = given.batch or BATCH[given.model]
    found = ratios(given.framework, given.model, given.algorithms, given.pairs, batch)
    row = {"framework": given.framework, "model": given.model, "batch": batch, "pairs": given.pairs, "hardware": hardware(), **found}
    print(json.dumps(row))
    if given.save:
        _save(row)


def _save(row: dict[str, Any]) -> None:
    """Put a row into results/qat_step.json, in the place of an older one of the same model and batch."""
    path = Path(__file__).parent / "results" / "qat_step.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else []
    which = ("framework", "model", "batch")
    rows = [other for other in known if any(other[key] != row[key] for key in which)]
    path.write_text(json.dumps(sorted([*rows, row], key=lambda row: [str(row[key]) for key in which]), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
