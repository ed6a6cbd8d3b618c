"""Views, taps, objectives and training on a whole (tiny) keras_hub BERT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import nnc
from nnc.objective import Objective
from nnc.views import Learning, Site
from nnc_tensorflow.adapter import TensorFlowAdapter
from tests.adapters.tensorflow_nets import channel_masks
from tests.adapters.tensorflow_views import Match, Plus, Scaled

keras_hub = pytest.importorskip("keras_hub")

BATCH = {
    "token_ids": np.array([[1, 2, 3, 4], [5, 6, 0, 0]]),
    "segment_ids": np.zeros((2, 4), int),
    "padding_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
}
LABELS = np.array([0, 1])


def classifier(seed=0):
    keras.utils.set_random_seed(seed)
    sizes = {"vocabulary_size": 11, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12, "max_sequence_length": 4}
    return keras_hub.models.BertTextClassifier(keras_hub.models.BertBackbone(**sizes, dropout=0.0), num_classes=2, preprocessor=None)


@pytest.fixture(name="model")
def give_model():
    return classifier()


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


def weights(adapter):
    """Return the sites of all weights: embeddings, projections, LayerNorms."""
    return [Site(layer.name, "weight") for layer in adapter.layers() if "weight" in layer.parameters]


def test_every_weight_is_seen_through_its_view(model, adapter):
    twin = classifier()
    sites = weights(adapter)
    stored = {id(layer.slots["weight"].variable) for layer in adapter.layers() if "weight" in layer.slots}
    for mine, theirs in zip(model.weights, twin.weights, strict=True):
        theirs.assign(np.asarray(mine.value) * (1.5 if id(mine) in stored else 1))

    adapter.set_views({site: (Scaled(1.5),) for site in sites})

    assert len(sites) == 13
    np.testing.assert_allclose(np.asarray(model(BATCH)), np.asarray(twin(BATCH)), rtol=1e-3, atol=1e-4)


def test_masks_views_and_taps_of_attention_compose(model, adapter):
    query = next(layer.name for layer in adapter.layers() if layer.name.endswith("query_dense"))
    adapter.set_masks(channel_masks(adapter, {query: range(4)}))  # the first of two heads
    adapter.set_views({Site(query, "weight"): (Plus(0.0),), Site(query, "output"): (Scaled(2.0),)})

    _, shown = adapter.forward(BATCH, [Site(query), Site(query, "weight")])

    assert shown[Site(query)].shape == (2, 4, 2, 4)
    assert (shown[Site(query)].numpy()[:, :, 0] == 0).all()
    assert shown[Site(query, "weight")].shape == (8, 8)
    assert (shown[Site(query, "weight")].numpy()[:4] == 0).all()


def test_gradients_reach_projections_and_what_passes_them(adapter):
    names = [layer.name for layer in adapter.layers() if layer.name.endswith(("query_dense", "intermediate_dense"))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    _, found = adapter.gradients(
        lambda model: loss(LABELS, model(BATCH)), [Site(name, tensor) for name in names for tensor in ("weight", "output")]
    )

    shapes = dict(adapter.forward(BATCH, found)[1])
    assert {site: gradient.shape for site, gradient in found.items()} == {site: tensor.shape for site, tensor in shapes.items()}
    assert all(np.abs(gradient.numpy()).max() > 0 for gradient in found.values())


class Tokens(Objective):
    """Mean squared difference of the hidden states of valid tokens."""

    name = "tokens"

    def __init__(self, site):
        self.student = self.teacher = (site,)

    def terms(self, seen, ops):
        mask = ops.astype(seen.mask, ops.float32)
        difference = ops.mean(ops.square(seen.student[self.student[0]] - seen.teacher[self.teacher[0]]), axis=-1)
        return {"mse": ops.sum(difference * mask) / ops.sum(mask)}


def test_fit_distils_hidden_states_of_valid_tokens(model, adapter):
    teacher = classifier(seed=7)
    names = {layer.name.partition(".")[0] for layer in adapter.layers()}
    site = Site(next(name for name in names if "backbone" in name), "output:sequence_output")
    other = Site(next(layer.name.partition(".")[0] for layer in TensorFlowAdapter(teacher).layers()), "output:sequence_output")
    objective = Tokens(site)
    objective.teacher = (other,)
    mine = adapter.forward(BATCH, [site])[1][site].numpy()
    theirs = TensorFlowAdapter(teacher).forward(BATCH, [other])[1][other].numpy()
    adapter.set_objectives([objective], teacher)
    model.compile(keras.optimizers.SGD(0.0))

    logs = model.fit(BATCH, LABELS, verbose=0).history

    expected = ((mine - theirs) ** 2).mean(axis=-1)[BATCH["padding_mask"] == 1].mean()
    np.testing.assert_allclose(logs["tokens.mse"], [expected], rtol=1e-4)


def test_fit_trains_weights_and_scores_together(model, adapter):
    sites = weights(adapter)
    before = model.get_weights()
    adapter.set_views({site: (Scaled(1.0, "scores"),) for site in sites})
    adapter.learn({"scores": Learning(0.01)})
    model.compile(keras.optimizers.AdamW(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    model.fit(BATCH, LABELS, verbose=0)

    moved = [numbers["s"] != 1 for numbers in adapter.numbers().values()]
    assert sum(moved) > len(moved) / 2
    assert sum((a != b).any() for a, b in zip(model.get_weights(), before, strict=True)) > len(before) / 2


def test_the_trainer_distils_from_a_copy_of_the_model(model, adapter):
    teacher = classifier(seed=7)
    adapter.set_objectives([Match()], teacher)
    data = [{**BATCH, "labels": LABELS}]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    history = nnc.Trainer(data=data, loss=loss, optimizer="adam", epochs=3, progress=False).train(model)

    assert len(history.losses) == 3
    assert np.isfinite(history.losses).all()
    assert tf.reduce_all(tf.math.is_finite(model(BATCH)))
