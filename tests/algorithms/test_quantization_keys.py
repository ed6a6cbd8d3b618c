"""What the keys of an entry mean, tensor by tensor, and that none is accepted and ignored; on both frameworks."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.views import Site
from tests.algorithms.quantization_networks import NETWORKS


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def two_layers(network):
    """Return layers fc1, 8 x 12, and fc2, 4 x 8, with an input for them."""
    draw = np.random.default_rng(0)
    model = network.dense([draw.standard_normal((8, 12)).astype("f4"), draw.standard_normal((4, 8)).astype("f4")])
    return model, network.tensor(draw.standard_normal((6, 12)))


class Tied(nn.Module):
    """An embedding whose table is the last layer's weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.table(tokens)))


@pytest.mark.parametrize("algorithm", ["ptq", "qat_ste"])
def test_a_tied_weight_has_a_grid_at_each_of_its_layers(algorithm):
    model = Tied()
    compressed = nnc.compress(model, [{"algorithm": algorithm}], torch.arange(6)[None])

    grids = compressed.quantizers[0].grids()

    largest = model.head.weight.detach().abs().amax(1) if compressed.unwrap() is model else None
    assert grids[Site("head", "weight")].scale == pytest.approx(largest.numpy() / 127)
    assert Site("table", "weight") in grids


def test_each_entry_has_learning_rates_of_its_own(network):
    """Adam's first step is the rate: fc1's scales move by 1e-4 of themselves, fc2's by a tenth."""
    model, x = two_layers(network)
    entries = [
        {"algorithm": "qat_lsq", "op_names": [name], "lr_weight": rate, "lr_input": rate} for name, rate in (("fc1", 1e-4), ("fc2", 0.1))
    ]
    trainer = network.trainer([(x, network.labels(6))])
    compressed = nnc.compress(model, entries, x, trainer=trainer)
    before = compressed.quantizers[0].grids()

    compressed.train(steps=1)

    after = compressed.quantizers[0].grids()
    moved = {str(site): float(np.max(np.abs(grid.scale / before[site].scale - 1))) for site, grid in after.items()}
    expected = {"fc1.weight": 1e-4, "fc1.input": 1e-4, "fc2.weight": 0.1, "fc2.input": 0.1}
    assert moved == pytest.approx(expected, rel=0.01)
