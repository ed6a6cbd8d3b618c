"""Truth values, as masks are: spread over heads, or computed for each, they keep none of them; what they tell apart stays apart."""

import numpy as np
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
ops = keras.ops
LOW = -1e9


def spread_in_torch(scores):
    causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~causal.expand(scores.shape), LOW)


def spread_in_keras(scores):
    causal = ops.cast(ops.tril(ops.ones(scores.shape[-2:], "int32")), "bool")
    return ops.where(ops.broadcast_to(causal, ops.shape(scores)), scores, LOW)


def of_scores_in_torch(scores):
    return torch.where((scores > 0) & torch.ones_like(scores, dtype=torch.bool), scores, LOW)


def of_scores_in_keras(scores):
    return ops.where(ops.logical_and(scores > 0, ops.ones_like(scores, "bool")), scores, LOW)


def of_places_in_torch(scores):
    """The first head, whichever that is, sees nothing but the first key."""
    first = torch.arange(scores.shape[1])[:, None, None] < 1
    return torch.where(first & (torch.arange(scores.shape[-1]) > 0), LOW, scores)


def of_places_in_keras(scores):
    first = ops.arange(scores.shape[1])[:, None, None] < 1
    return ops.where(ops.logical_and(first, ops.arange(scores.shape[-1]) > 0), LOW, scores)


class Torch(torch.nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.masked, self.size = masked, 6
        self.q, self.k, self.v, self.out = (torch.nn.Linear(24, 24) for _ in range(4))

    def forward(self, x):
        q, k, v = (layer(x).reshape(x.shape[0], x.shape[1], -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = self.masked(q @ k.transpose(-1, -2) / 2.5).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).flatten(2))


class Keras(keras.Model):
    def __init__(self, masked):
        super().__init__()
        self.masked, self.size = masked, 6
        self.q, self.k, self.v, self.out = (keras.layers.Dense(24) for _ in range(4))

    def call(self, x):
        sizes = (x.shape[0], x.shape[1], -1, self.size)
        q, k, v = (ops.transpose(ops.reshape(layer(x), sizes), (0, 2, 1, 3)) for layer in (self.q, self.k, self.v))
        scores = ops.softmax(self.masked(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 2.5))
        return self.out(ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (x.shape[0], x.shape[1], -1)))


def network(masked):
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((2, 5, 24)).astype("float32")
    if masked.__name__.endswith("torch"):
        return Torch(masked).eval(), torch.from_numpy(x)
    model = Keras(masked)
    model(x)
    return model, x


def without_two_heads(model, x):
    """Remove the first and the third of four heads."""
    stays = np.repeat([False, True, False, True], 6)
    speedup = nnc.ModelSpeedup(model, x, {name: {"weight": np.repeat(stays[:, None], 24, 1), "bias": stays} for name in "qkv"})
    return speedup, speedup.speedup_model()


def rows(model):
    return {layer.name: layer.parameters["weight"][0] for layer in adapter_for(model).layers()}


@pytest.mark.parametrize("masked", [spread_in_torch, spread_in_keras, of_scores_in_torch, of_scores_in_keras])
def test_heads_leave_whose_scores_a_mask_is_spread_over_or_computed_from(masked):
    speedup, small = without_two_heads(*network(masked))

    assert rows(small) == {"q": 12, "k": 12, "v": 12, "out": 24}
    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()


@pytest.mark.filterwarnings("ignore::nnc.errors.NothingRemoved")
@pytest.mark.parametrize("masked", [of_places_in_torch, of_places_in_keras])
def test_heads_that_code_tells_apart_by_their_places_stay(masked):
    speedup, small = without_two_heads(*network(masked))

    assert rows(small) == {"q": 24, "k": 24, "v": 24, "out": 24}
    assert speedup.difference <= 1e-6 and speedup.plan.kept


class ChoosingInTorch(torch.nn.Module):
    """Rows that are not meant are set to zero, as those of padding are."""

    def __init__(self, filled=False):
        super().__init__()
        self.filled = filled
        self.up, self.down = torch.nn.Linear(6, 16), torch.nn.Linear(16, 3)

    def forward(self, x):
        y = self.up(x).relu()
        return self.down(y.masked_fill(x[:, :1] <= 0, 0) if self.filled else torch.where(x[:, :1] > 0, y, torch.zeros_like(y)))


class ChoosingInKeras(keras.Model):
    def __init__(self):
        super().__init__()
        self.up, self.down = keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)

    def call(self, x):
        y = self.up(x)
        return self.down(ops.where(x[:, :1] > 0, y, ops.zeros_like(y)))


@pytest.mark.parametrize(
    "build", [ChoosingInTorch, lambda: ChoosingInTorch(filled=True), ChoosingInKeras], ids=["torch", "filled", "keras"]
)
def test_a_choice_between_zeros_is_zero(build):
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    model = build()
    x = torch.from_numpy(x) if isinstance(model, torch.nn.Module) else x
    model(x)
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose()

    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert rows(small) == {"up": 8, "down": 3}
    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
