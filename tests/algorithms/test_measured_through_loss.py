"""What is measured on a trainer's batches whose form only its loss knows: the loss runs the model."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.registry import adapter_for
from tests.algorithms.quantization_networks import NETWORKS


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def triples(network):
    """Return a trainer whose batches hold scale, images and labels; its loss gives the model the scaled images."""

    def loss(model, batch):
        scale, images, _ = batch
        return model(images * scale)[0, 0]

    optimizer = network.trainer([]).optimizer
    return nnc.Trainer([(np.float32(3), network.images(), network.labels())], loss, optimizer, progress=False)


def test_ranges_are_those_of_what_the_loss_gives_the_model(network):
    c = nnc.compress(network.small(), [{"algorithm": "ptq"}], example_inputs=network.images(4), trainer=triples(network))

    range_ = adapter_for(c.model).numbers()["c1.input", "quantise"]

    images = 3 * np.asarray(network.images())
    assert float(range_["low"]) == pytest.approx(images.min(), rel=1e-6)
    assert float(range_["high"]) == pytest.approx(images.max(), rel=1e-6)


def test_a_pruner_of_activations_measures_through_the_loss_too(network):
    c = nnc.compress(
        network.small(), [{"algorithm": "apoz", "op_names": ["c1"], "sparsity": 0.5}], network.images(4), trainer=triples(network)
    )

    assert not np.asarray(c.masks["c1"]["weight"]).all()


def test_what_needs_the_graph_asks_for_example_inputs(network):
    entry = {"algorithm": "ptq", "op_types": ["Linear"], "rounding": "gptq"}

    with pytest.raises(ConfigError, match="found by running the model; pass example_inputs="):
        nnc.compress(network.small(), [entry], trainer=triples(network))
