"""What pruning costs grows with the number of layers, not faster."""

from time import process_time

import pytest
import torch

import nnc
from nnc_pruning import L1NormPruner

transformers = pytest.importorskip("transformers")


def bert(depth):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}
    return transformers.BertModel(transformers.BertConfig(num_hidden_layers=depth, **sizes)).eval()


def seconds(model, tokens):
    """Return the CPU seconds to score, group, trace, shrink and check."""
    start = process_time()
    nnc.ModelSpeedup(model, tokens, L1NormPruner(model, [{"sparsity": 0.5}], tokens).propose()).speedup_model()
    return process_time() - start


def test_four_times_the_layers_cost_four_times_as_much():
    tokens = torch.arange(8)[None]
    shallow, deep = bert(12), bert(48)
    seconds(shallow, tokens)  # imports and lazy set-up

    cost = [min(seconds(model, tokens) for _ in range(3)) for model in (shallow, deep)]

    # Quadratic cost would be 16 times; what does not depend on depth, and noise, move 4 a little.
    assert cost[1] <= 5 * cost[0]
