"""Scores that are measured on data, beside the same numbers worked out in NumPy."""

import numpy as np
import pytest

import nnc_pruning
from nnc.arrays import to_float64
from nnc.errors import ConfigError, TrainingError
from nnc.registry import adapter_for
from nnc.testing import needs_trainer
from nnc.trainer import Trainer
from nnc_pruning import APoZPruner, LAMPPruner, LevelPruner, MeanActivationPruner, OBDPruner, SparseGPTPruner, TaylorFOPruner, WandaPruner
from tests.algorithms.tiny_networks import IMAGES, PICTURES, ROWS, X, convnet, linear, mlp, numbered, seen, trainer
from tests.frameworks import FRAMEWORKS

HIDDEN = [{"op_names": ["hidden"], "sparsity": 0.5}]
PRUNERS = [getattr(nnc_pruning, name) for name in nnc_pruning.__all__]


def scores(pruner, model, config=HIDDEN, **options):
    """Return the scores that a pruner gives the layers, by layer, as it compresses the model."""
    one = pruner(model, config, **options)
    score, found = one.score, {}

    def kept(layer):
        given = score(layer)
        found[layer.name] = to_float64(given)
        return given

    one.score = kept
    one.compress()
    return found


def hidden_gradient(model, x, y):
    """Return dL/dW of the layer hidden for L = mean((W2 relu(W1 x + b1) + b2 - y)^2)."""
    w1, b1, w2, b2 = (seen(model, layer, key) for layer in ("hidden", "classes") for key in ("weight", "bias"))
    before = x @ w1.T + b1
    error = 2 * (np.maximum(before, 0) @ w2.T + b2 - y) / y.size
    return ((error @ w2) * (before > 0)).T @ x


def hidden_activations(model):
    return np.maximum(X @ seen(model, "hidden").T + seen(model, "hidden", "bias"), 0)  # (batches, rows, channels)


def test_taylor_is_the_mean_over_batches_of_the_squares_of_weight_times_gradient(framework):
    model = mlp(framework)
    products = [seen(model, "hidden") * hidden_gradient(model, x, y) for x, y in ROWS]

    found = scores(TaylorFOPruner, model, trainer=trainer(framework, ROWS))

    np.testing.assert_allclose(found["hidden"], np.mean([(product**2).sum(axis=1) for product in products], axis=0), rtol=1e-4)


def test_obd_is_half_the_fisher_information_times_the_square(framework):
    model = mlp(framework)
    fisher = np.mean([hidden_gradient(model, x, y) ** 2 for x, y in ROWS], axis=0)

    found = scores(OBDPruner, model, trainer=trainer(framework, ROWS))

    np.testing.assert_allclose(found["hidden"], fisher * seen(mlp(framework), "hidden") ** 2 / 2, rtol=1e-4)


def test_only_as_many_batches_are_measured_as_the_entry_says(framework):
    model = mlp(framework)
    product = seen(model, "hidden") * hidden_gradient(model, *ROWS[0])

    found = scores(TaylorFOPruner, model, [{**HIDDEN[0], "batches": 1}], trainer=trainer(framework, ROWS))

    np.testing.assert_allclose(found["hidden"], (product**2).sum(axis=1), rtol=1e-4)


def test_every_sample_counts_alike_however_the_batches_are_cut(framework):
    x, y = X.reshape(-1, 4), np.concatenate([y for _, y in ROWS])
    uneven = [(x[:20], y[:20]), (x[20:], y[20:])]
    activations = hidden_activations(mlp(framework)).reshape(len(x), -1)

    apoz = scores(APoZPruner, mlp(framework), trainer=trainer(framework, uneven))
    mean = scores(MeanActivationPruner, mlp(framework), trainer=trainer(framework, uneven))

    np.testing.assert_allclose(apoz["hidden"], (activations != 0).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(mean["hidden"], activations.mean(axis=0), rtol=1e-5)


def test_a_layer_whose_weight_is_that_of_another_has_an_activation_too():
    """Its weight stands in the graph under the other's name."""
    torch = pytest.importorskip("torch")

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            return torch.relu(self.head(self.table(tokens)))

    torch.manual_seed(0)
    model, tokens = Tied(), torch.arange(9)
    activations = model(tokens).detach().numpy()

    pruner = APoZPruner(model, [{"op_names": ["head"], "sparsity": 0.5}], trainer=Trainer([(tokens, tokens)], progress=False))
    pruner.measure()

    np.testing.assert_allclose(pruner.score(pruner.layers["head"]), (activations != 0).mean(axis=0))


def test_apoz_is_how_often_the_activation_is_not_zero(framework):
    model = mlp(framework)

    found = scores(APoZPruner, model, trainer=trainer(framework, ROWS))

    np.testing.assert_array_equal(found["hidden"], (hidden_activations(mlp(framework)) > 0).mean(axis=(0, 1)))


def test_mean_activation_is_taken_after_the_nonlinearity(framework):
    model = mlp(framework)

    found = scores(MeanActivationPruner, model, trainer=trainer(framework, ROWS))

    np.testing.assert_allclose(found["hidden"], hidden_activations(mlp(framework)).mean(axis=(0, 1)), rtol=1e-5)


def test_a_convolutions_activation_is_that_behind_its_batch_norm_and_relu(framework):
    model = convnet(framework)
    weight, bias, gamma, beta = (seen(model, layer, key) for layer in ("conv", "norm") for key in ("weight", "bias"))
    padded = np.pad(IMAGES.reshape(-1, 2, 5, 5), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    convolved = np.einsum("nihwkl,oikl->nhwo", windows, weight) + bias
    activation = np.maximum(convolved / np.sqrt(1 + 1e-5) * gamma + beta, 0)

    found = {
        pruner.name: scores(pruner, convnet(framework), [{"op_names": ["conv"], "sparsity": 0.5}], trainer=trainer(framework, PICTURES))
        for pruner in (APoZPruner, MeanActivationPruner)
    }

    np.testing.assert_allclose(found["mean_activation"]["conv"], activation.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found["apoz"]["conv"], (activation > 0).mean(axis=(0, 1, 2)), rtol=1e-9)


def test_lamp_divides_each_square_by_the_sum_of_those_that_are_not_smaller(framework):
    # Squares 9, 16, 1, 4: 1 / 30, 4 / 29, 9 / 25, 16 / 16.
    found = scores(LAMPPruner, linear(framework, [[3, -4], [1, 2]]), [{"sparsity": 0.5}])

    np.testing.assert_allclose(found["fc"], [[9 / 25, 1], [1 / 30, 4 / 29]], rtol=1e-12)


def test_wanda_is_the_magnitude_times_the_norm_of_the_input(framework):
    model = mlp(framework)

    found = scores(WandaPruner, model, trainer=trainer(framework, ROWS))

    norms = np.sqrt((X.reshape(-1, 4).astype("float64") ** 2).sum(axis=0))
    np.testing.assert_allclose(found["hidden"], np.abs(seen(mlp(framework), "hidden")) * norms, rtol=1e-5)


def test_wanda_compares_weights_within_their_row_only(framework):
    weight = [[100, 200, 300, 400], [0.1, 0.4, 0.2, 0.3]]
    data = [(np.eye(4, dtype="float32"), np.zeros((4, 2), "float32"))]

    _, masks = WandaPruner(linear(framework, weight), [{"sparsity": 0.5}], trainer=trainer(framework, data)).compress()

    assert masks["fc"]["weight"].tolist() == [[False, False, True, True], [False, True, False, True]]


@pytest.mark.parametrize("block", [2, 128])
def test_sparsegpt_prunes_and_makes_up_as_brain_surgery_with_dense_inverses_does(framework, block):
    weight = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    data = [(x, y[:, [0, 1, 0]]) for x, y in ROWS]
    model = linear(framework, weight)

    _, masks = SparseGPTPruner(model, [{"sparsity": 0.5, "block": block}], trainer=trainer(framework, data)).compress()

    keep, expected = brain_surgery(weight.astype("float64"), X.reshape(-1, 4).astype("float64"), 0.5, 0.01, block)
    np.testing.assert_array_equal(masks["fc"]["weight"], keep)
    np.testing.assert_allclose(seen(model, "fc"), expected, rtol=1e-4, atol=1e-6)


def brain_surgery(weight, x, sparsity, damping, block):
    """Prune column by column; each time the Hessian of the columns that are still free is inverted anew."""
    hessian = x.T @ x
    hessian += damping * np.diag(hessian).mean() * np.eye(len(hessian))
    keep = np.ones(weight.shape, bool)
    inverses = [np.linalg.inv(hessian[column:, column:]) for column in range(len(hessian))]
    for start in range(0, len(hessian), block):
        columns = range(start, min(start + block, len(hessian)))
        cost = np.array([[row[column] ** 2 / inverses[column][0, 0] for column in columns] for row in weight])
        for index in np.argsort(cost, axis=None)[: int(cost.size * sparsity)]:
            row, offset = np.unravel_index(index, cost.shape)
            keep[row, start + offset] = False
        for column in columns:
            for row in np.flatnonzero(~keep[:, column]):
                inverse = inverses[column]
                weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[:, 0]
    return keep, np.where(keep, weight, 0)


def test_what_sparsegpt_leaves_computes_nearer_to_the_layer_than_the_largest_weights_do(framework):
    draw = np.random.default_rng(1)
    x = (draw.standard_normal((64, 16)) @ draw.standard_normal((16, 16))).astype("float32")
    weight = draw.standard_normal((8, 16)).astype("float32")
    errors = {}
    for pruner in (SparseGPTPruner, LevelPruner):
        model = linear(framework, weight)
        options = {} if pruner is LevelPruner else {"trainer": trainer(framework, [(x, np.zeros((64, 8), "float32"))])}
        pruner(model, [{"sparsity": 0.5}], **options).compress()
        errors[pruner.name] = ((x @ (seen(model, "fc") - weight).T) ** 2).sum()

    assert errors["sparsegpt"] < errors["level"]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_both_frameworks_score_alike(pruner):
    names = {"slim": ["norm"], "wanda": ["classes"], "sparsegpt": ["classes"], "movement": ["hidden", "classes"]}
    config = [{"op_names": names.get(pruner.name, ["conv", "classes"]), "sparsity": 0.5}]
    # In front of a BatchNorm the sum of w * dL/dw over a filter is 0 but for rounding, so movement is compared on another network.
    build, data = (mlp, ROWS) if pruner.name == "movement" else (convnet, PICTURES)
    found = {}
    for framework in FRAMEWORKS.values():
        options = {"trainer": trainer(framework, data, rate=0.01)} if needs_trainer(pruner) else {}
        found[framework.name] = scores(pruner, build(framework), config, **options)

    assert found["torch"].keys() == found["keras"].keys()
    for layer, given in found["torch"].items():
        np.testing.assert_allclose(given, found["keras"][layer], rtol=1e-5, atol=1e-5 * np.abs(given).max(), err_msg=layer)


@pytest.mark.parametrize("pruner", [one for one in PRUNERS if needs_trainer(one) and not one.learns], ids=lambda pruner: pruner.name)
def test_a_pruner_that_measures_asks_for_a_trainer(framework, pruner):
    with pytest.raises(ConfigError, match=f"trainer: '{pruner.name}' measures on data; pass trainer=nnc.Trainer"):
        pruner(mlp(framework), HIDDEN)


def test_no_batches_to_measure_on_is_an_error(framework):
    model = mlp(framework)

    with pytest.raises(TrainingError, match=r"Trainer\.data: has no batches, and 'taylor_fo' measures on 16"):
        TaylorFOPruner(model, HIDDEN, trainer=trainer(framework, [])).compress()

    assert adapter_for(model).masks() == {}


def test_a_loss_that_is_nan_while_measuring_is_an_error_that_names_the_batch(framework):
    bad = [ROWS[0], (X[1] * np.float32("nan"), ROWS[1][1])]

    with pytest.raises(TrainingError, match=r"Trainer\.loss: is NaN on batch 2, on which 'taylor_fo' measures"):
        TaylorFOPruner(mlp(framework), HIDDEN, trainer=trainer(framework, bad)).compress()


@pytest.mark.parametrize("pruner", [TaylorFOPruner, OBDPruner])
def test_what_is_scored_low_is_what_the_loss_misses_least(framework, pruner):
    """Leave one channel out at a time: the ranks of the scores and of the loss's changes agree."""
    model = trained(framework)
    measured = trainer(framework, ROWS)
    found = scores(pruner, model, [{"op_names": ["hidden"], "sparsity": 0.1}], trainer=measured)["hidden"]
    per_channel = found.reshape(len(found), -1).sum(axis=1)

    assert rank_correlation(per_channel, leave_one_out(trained(framework))) > 0.5


def trained(framework):
    """Return 4 -> 8 -> 2 after training: 8 channels are enough to rank."""
    model = wide(framework)
    trainer(framework, ROWS, rate=0.1).train(model, epochs=15)
    return model


def wide(framework):
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        return numbered(nn.Sequential(OrderedDict(hidden=nn.Linear(4, 8), relu=nn.ReLU(), classes=nn.Linear(8, 2))))
    import keras

    layers = keras.layers
    return numbered(
        keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(2, name="classes")])
    )


def leave_one_out(model):
    """Return how far the loss of each batch moves without each hidden channel: squares, as Taylor's criterion estimates, summed."""
    w1, b1, w2, b2 = (seen(model, layer, key) for layer in ("hidden", "classes") for key in ("weight", "bias"))
    changes = np.zeros(len(w1))
    for x, y in ROWS:
        hidden = np.maximum(x @ w1.T + b1, 0)
        whole = np.mean((hidden @ w2.T + b2 - y) ** 2)
        without = [np.mean((np.delete(hidden, c, 1) @ np.delete(w2, c, 1).T + b2 - y) ** 2) for c in range(len(w1))]
        changes += (np.array(without) - whole) ** 2
    return changes


def rank_correlation(left, right):
    """Return Spearman's coefficient."""
    ranks = [np.argsort(np.argsort(each)) for each in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])
