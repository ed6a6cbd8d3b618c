"""Fine-tune a real BERT on SST-2, then make it small: half of the heads by movement pruning, half of the feed-forward by Taylor scores.

    NNC_DATA=... python examples/bert_sst2.py --framework torch
    NNC_DATA=... python examples/bert_sst2.py --framework keras --sentences 2000 --folder out/quick     a quick look

The stages stand in bert_sst2_torch.yaml and bert_sst2_keras.yaml, which differ in names only. A run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import nnc
import sst2


def torch_side(length: int):
    """Return what is of PyTorch: the model, how a batch becomes a loss, the optimizer, and predictions."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(sst2.checkpoint(), num_labels=2)

    def inputs(ids, mask):
        return {"input_ids": torch.as_tensor(ids).long(), "attention_mask": torch.as_tensor(mask).long()}

    def loss(model, batch):
        ids, mask, labels = batch
        return torch.nn.functional.cross_entropy(model(**inputs(ids, mask)).logits, torch.as_tensor(labels))

    def predict(model, ids, mask):
        model.eval()
        with torch.no_grad():
            return model(**inputs(ids, mask)).logits.argmax(1).numpy()

    return model, loss, lambda parameters: torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.01, fused=True), predict, inputs


def keras_side(length: int):
    """Return what is of Keras: the same model with the same weights, and the same of the rest."""
    import keras

    from bert_keras import bert_classifier

    keras.utils.set_random_seed(0)
    model = bert_classifier(sst2.checkpoint(), length)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def inputs(ids, mask):
        return {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}

    def loss(model, batch):
        ids, mask, labels = batch
        import tensorflow as tf

        given = {"token_ids": ids, "segment_ids": tf.zeros_like(ids), "padding_mask": mask}
        return cross_entropy(labels, model(given, training=True))

    def predict(model, ids, mask):
        return np.asarray(model(inputs(ids, mask), training=False)).argmax(1)

    return model, loss, lambda _: keras.optimizers.AdamW(5e-5, weight_decay=0.01), predict, inputs


SIDES = {"torch": torch_side, "keras": keras_side}


@dataclass(frozen=True)
class Task:
    """The model of one framework, a trainer on SST-2, example inputs, the function that makes more of them, and steps in an epoch."""

    model: Any
    trainer: nnc.Trainer
    example: Any
    inputs: Callable[[Any, Any], Any]
    steps: int


def prepare(framework: str, sentences: int = 20_000, length: int = 64, batch: int = 32) -> Task:
    """Read the data and the checkpoint."""
    model, loss, optimizer, predict, inputs = SIDES[framework](length)
    texts, labels = sst2.sentences("train", sentences)
    train = sst2.tokens(texts, length)
    dev_texts, dev_labels = sst2.sentences("dev")
    dev = sst2.tokens(dev_texts, length)

    def accuracy(model) -> float:
        rows = sst2.batches(dev, dev_labels, 64, shuffle=False)()
        return float(np.mean(np.concatenate([predict(model, ids, mask) == wanted for ids, mask, wanted in rows])))

    trainer = nnc.Trainer(sst2.batches(train, labels, batch), loss, optimizer, accuracy)
    return Task(model, trainer, inputs(dev["ids"][:2], dev["mask"][:2]), inputs, -(-len(labels) // batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=sorted(SIDES), required=True)
    parser.add_argument("--sentences", type=int, default=20_000, help="how many training sentences")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="where the run is kept; default out/bert_sst2_FRAMEWORK")
    parser.add_argument("--recipe", type=Path, help="another recipe than the framework's own")
    args = parser.parse_args()

    task = prepare(args.framework, args.sentences, args.length, args.batch)
    folder = args.folder or Path("out") / f"bert_sst2_{args.framework}"
    recipe = args.recipe or Path(__file__).with_name(f"bert_sst2_{args.framework}.yaml")
    console = Console()
    result = nnc.run(task.model, recipe, trainer=task.trainer, example_inputs=task.example, folder=folder)
    console.print(result)
    report = nnc.report(task.model, result.model, task.example)
    console.print(report)
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1), "utf-8")


if __name__ == "__main__":
    main()
