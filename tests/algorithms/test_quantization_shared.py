"""Layers that read one tensor: its grid is one, and it is put on the grid once in a forward pass."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.registry import adapter_for
from nnc.views import Site
from nnc_quantization import fake


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        x = self.first(x)
        return self.a(x) * self.b(x)


def torch_pair():
    torch.manual_seed(0)
    loss = nn.functional.cross_entropy
    data = [(torch.rand(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4)]
    return Pair(), data, nnc.Trainer(data, loss, lambda parameters: torch.optim.SGD(parameters, 0.0), progress=False)


def keras_pair():
    keras.utils.set_random_seed(0)
    given = keras.Input((6,))
    x = keras.layers.Dense(8, name="first")(given)
    model = keras.Model(given, keras.layers.Multiply()([keras.layers.Dense(4, name="a")(x), keras.layers.Dense(4, name="b")(x)]))
    data = [(np.random.default_rng(0).random((16, 6)).astype("f4"), np.arange(16) % 4)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, data, nnc.Trainer(data, loss, lambda variables: keras.optimizers.SGD(0.0), progress=False)


PAIRS = {"torch": torch_pair, "keras": keras_pair}


@pytest.fixture(params=sorted(PAIRS))
def pair(request):
    return PAIRS[request.param]()


def test_a_shared_input_is_put_on_the_grid_once_in_a_training_step(pair, monkeypatch):
    """Two inputs, of `first` and of `a` and `b`; Keras compiles the step, which calls each function once."""
    model, data, trainer = pair
    c = nnc.compress(model, [{"algorithm": "qat_ste"}], example_inputs=data[0][0], trainer=trainer)
    calls, plain = [], fake.ste
    monkeypatch.setattr(fake, "ste", lambda *given: calls.append(1) or plain(*given))

    c.train(steps=1)

    assert len(calls) == 2


def test_a_shared_range_follows_each_batch_once(pair):
    """Ten steps of one per cent each: 1 - 0.99^10 of the way from what zeros gave to what the batches give."""
    model, data, trainer = pair
    _, passed = adapter_for(model).forward(data[0][0], [Site("a", "input")])
    largest = max(float(np.max(np.asarray(passed[Site("a", "input")]))), 0.0)
    c = nnc.compress(model, [{"algorithm": "qat_ste", "op_names": ["a", "b"]}], example_inputs=data[0][0] * 0)
    start = float(adapter_for(model).numbers()["a.input", "quantise"]["high"])
    c.trainer = nnc.Trainer(data * 10, trainer.loss, trainer.optimizer, progress=False)

    c.train(epochs=1)

    found = float(adapter_for(model).numbers()["a.input", "quantise"]["high"])
    assert found - start == pytest.approx((1 - 0.99**10) * (largest - start), rel=1e-3)


def test_a_learned_scale_gets_the_gradients_of_all_who_read_it():
    """Torch: d loss / d scale with a and b sharing is the sum of those with a and with b alone, since each reads the same numbers."""
    ratios = []
    for shown in (["a", "b"], ["a"], ["b"]):
        model, data, _ = torch_pair()
        c = nnc.compress(model, [{"algorithm": "qat_lsq", "quant_types": ["input"], "op_names": shown}], example_inputs=data[0][0])
        x = model.first(data[0][0])
        a, b = (layer(x) if name in shown else layer(x).detach() for name, layer in (("a", model.a), ("b", model.b)))
        (a + b).sum().backward()
        (hook,) = getattr(model, shown[0])._forward_pre_hooks.values()
        ratios.append(hook.stack[0][1]["ratio"].grad)
        c.unwrap()
    assert float(ratios[0]) == pytest.approx(float(ratios[1] + ratios[2]), rel=1e-5)
