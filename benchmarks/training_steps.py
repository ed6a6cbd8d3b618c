"""What a training step costs with nnc on the model, beside the same step without: CPU seconds, by turns, in one process.

    python -m benchmarks.training_steps                      torch: LeNet, batch 32, and BERT-6L (384 wide), batch 8 x 64 tokens
    python -m benchmarks.training_steps --batch 32           BERT-6L at another batch size
    python -m benchmarks.training_steps --keras              the same BERT in Keras, its steps compiled as in `fit`
    python -m benchmarks.training_steps --batch 8 --rows movement MiniLM --repeats 15   some rows beside the plain step, more often

A ratio is the median over rounds of a step's seconds by those of the plain step in the same round.

Rows: views that do nothing; 8-bit fake quantisation with a straight-through gradient of all weights, and of all inputs too; element
masks; movement scores of channels, heads and elements; a frozen teacher of the same size with MiniLM and soft targets. Keras has the last
two, with the plain step. AdamW, float32, one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import nnc
from benchmarks.cpu_time import rounds_by_turns
from nnc.views import Site, Variable, View
from nnc_torch.adapter import TorchAdapter

Step = Callable[[], None]
LENGTH = 64


class Identity(View):
    name = "identity"

    def __call__(self, x: Any, state: Any, ops: Any, training: bool) -> Any:
        return x


class FakeQuantised(View):
    """s * clip(round(x / s), -127, 127) with the gradient of the clip."""

    name = "fake_quantised"

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def variables(self) -> dict[str, Variable]:
        return {"scale": Variable(np.float32(self.scale))}

    def __call__(self, x: Any, state: Any, ops: Any, training: bool) -> Any:
        def forward(x: Any, scale: Any) -> Any:
            levels = x / scale
            return ops.clip(ops.round(levels), -127, 127) * scale, (levels,)

        return ops.with_gradient(forward, lambda g, levels: (ops.clip_gradient(g, levels, -127, 127), None), x, state["scale"])


def lenet(batch: int) -> tuple[nn.Module, dict[str, Any]]:
    first = [nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*first, nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
    return model, {"input": torch.randn(batch, 1, 28, 28)}


def bert(batch: int) -> tuple[nn.Module, dict[str, Any]]:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    ids = torch.randint(0, 30000, (batch, LENGTH))
    return BertForSequenceClassification(BertConfig(**sizes)), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def views(quantised: bool, inputs: bool = False) -> Callable[[nn.Module], None]:
    def put(model: nn.Module) -> None:
        adapter = TorchAdapter(model)
        names = [layer.name for layer in adapter.layers() if layer.prunable]
        sites = {Site(name, "weight"): (FakeQuantised(0.01) if quantised else Identity(),) for name in names}
        adapter.set_views(sites | ({Site(name, "input"): (FakeQuantised(0.05),) for name in names} if inputs else {}))

    return put


def half_masked(model: nn.Module) -> None:
    generator, adapter = np.random.default_rng(0), TorchAdapter(model)
    adapter.set_masks({x.name: {"weight": generator.random(x.parameters["weight"]) < 0.5} for x in adapter.layers() if x.prunable})


def step_of(model: nn.Module, batch: dict[str, Any], config: Any = None, **options: Any) -> Step:
    """Return a step of AdamW on a loss of the outputs; with a config, compressed by it."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    total: Callable[[Any], Any] = lambda loss: loss  # noqa: E731
    if config is not None:
        total = nnc.compress(model, config, example_inputs=batch, optimizer=optimizer, **options).loss
        model.train()

    def step() -> None:
        optimizer.zero_grad()
        outputs = model(**batch)
        logits = getattr(outputs, "logits", outputs)
        total(nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])).backward()
        optimizer.step()

    return step


def rows(build: Callable[[int], tuple[nn.Module, dict[str, Any]]], batch: int) -> dict[str, Callable[[], Step]]:
    def made(put: Callable[[nn.Module], None] | None = None, config: Any = None, **options: Any) -> Step:
        torch.manual_seed(0)
        model, inputs = build(batch)
        if put is not None:
            put(model)
        return step_of(model, inputs, config, **options)

    found: dict[str, Callable[[], Step]] = {
        "plain": made,
        "identity views": partial(made, views(False)),
        "8-bit weights": partial(made, views(True)),
        "8-bit weights and inputs": partial(made, views(True, inputs=True)),
        "element masks": partial(made, half_masked),
    }
    if build is bert:
        movement = {"algorithm": "movement", "op_types": ["Linear"], "sparsity": 0.5}
        heads = {**movement, "op_partial_names": ["attention.self"], "granularity": "head"}
        found["movement, channels"] = partial(made, config=[movement])
        found["movement, heads"] = partial(made, config=[heads])
        found["movement, elements"] = partial(made, config=[{**movement, "element": True}])
        found["MiniLM and kl"] = partial(made, config=SOFT, teacher=bert(batch)[0])
    return found


SOFT = [{"algorithm": "kl", "temperature": 2}, {"algorithm": "minilm"}]
MOVEMENT = {"algorithm": "movement", "sparsity": 0.5, "op_partial_names": ["transformer_layer"], "op_types": ["Linear"]}
KERAS = {
    "plain": None,
    "movement, channels": [MOVEMENT],
    "movement, elements": [{**MOVEMENT, "element": True}],
    "MiniLM and kl": SOFT,
}


def keras_rows(batch: int) -> dict[str, Callable[[], Step]]:
    """Return what makes a step of each row on keras_hub's BERT of the same sizes."""
    import keras
    import keras_hub
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sizes = {"hidden_dim": 384, "num_layers": 6, "num_heads": 12, "intermediate_dim": 1536}
    ids = np.random.default_rng(0).integers(0, 30000, (batch, LENGTH)).astype("int32")
    inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": np.ones_like(ids)}
    labels = np.arange(batch) % 2

    def built() -> Any:
        backbone = keras_hub.models.BertBackbone(vocabulary_size=30522, max_sequence_length=LENGTH, **sizes)
        return keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)

    def made(config: Any) -> Step:
        model = built()
        if config is not None:
            nnc.compress(model, config, inputs, teacher=built() if config[0]["algorithm"] == "kl" else None)
        model.compile(keras.optimizers.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return lambda: model.train_on_batch(inputs, labels)

    return {name: partial(made, config) for name, config in KERAS.items()}


def show(name: str, batch: int, rows: dict[str, Callable[[], Step]], wanted: list[str], repeats: int | None) -> None:
    chosen = [row for row in rows if row == "plain" or not wanted or any(part in row for part in wanted)]
    rounds = rounds_by_turns([rows[row]() for row in chosen], repeats)
    for index, row in enumerate(chosen):
        taken, ratio = (median(values) for values in zip(*((each[index], each[index] / each[0]) for each in rounds), strict=True))
        print(f"{name:6} batch {batch:3}  {row:26} {1e3 * taken:8.1f} ms  {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, help="sentences in a batch of BERT-6L; LeNet is left out")
    parser.add_argument("--keras", action="store_true", help="BERT-6L in Keras")
    parser.add_argument("--rows", nargs="*", default=[], help="parts of the names of the rows to measure, beside the plain step")
    parser.add_argument("--repeats", type=int, help="rounds, each of one step of every row")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.keras:
        show("keras", given.batch or 8, keras_rows(given.batch or 8), given.rows, given.repeats)
        return
    for build, batch in [(bert, given.batch)] if given.batch else [(lenet, 32), (bert, 8)]:
        show(build.__name__, batch, rows(build, batch), given.rows, given.repeats)


if __name__ == "__main__":
    main()
