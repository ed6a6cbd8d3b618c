"""Random networks under random masks: what the plan leaves computes what the masks did, to rounding."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnc.graph.ir import Tensor
from nnc.graph.propagate import propagate
from tests.core.graphs import Pencil, masked
from tests.core.interpreter import masked_parameters, run, shrunk_parameters

SIDE = 4


def random_network(draw) -> Pencil:
    """A small random CNN with branches, drawn block by block; ends in a flatten and a linear layer."""
    p, last = Pencil(), draw(st.booleans())
    channel = 3 if last else 1
    shape = [2, SIDE, SIDE, SIDE]
    shape[channel] = 3
    values = [p.input(*shape)]
    for number in range(draw(st.integers(2, 6))):
        values.append(block(draw, p, values, f"block{number}", channel))
    x = p.reshape(values[-1], 2, int(np.prod(values[-1].shape[1:])))
    x = p.linear(p.relu(p.linear(x, "fc1", 5)), "fc2", 3)
    p.output(x)
    for name, numbers in p.numbers.items():
        if not name.endswith("running_var"):
            numbers -= 1.0  # both signs, so that relu cuts some shifts off
    return p


def block(draw, p: Pencil, values: list[Tensor], name: str, channel: int) -> Tensor:
    x = draw(st.sampled_from(values))
    width, last = x.shape[channel], channel == 3
    kind = draw(st.sampled_from(["conv", "norm", "relu", "sigmoid", "add", "mul", "concat", "depthwise", "grouped", "gate"]))
    if kind == "norm":
        return p.batch_norm(x, name, channel)
    if kind in ("relu", "sigmoid"):
        return getattr(p, kind)(x)
    if kind == "depthwise":
        return p.conv(x, name, width * draw(st.integers(1, 2)), padded=True, groups=width, bias=draw(st.booleans()), last=last)
    if kind == "grouped" and width % 2 == 0:
        return p.conv(x, name, 4, padded=True, groups=2, last=last)
    if kind == "gate":
        axes = (1, 2) if last else (2, 3)
        gate = p.sigmoid(p.linear(p.mean(x, *axes), name, width))
        wide = [2, 1, 1, 1]
        wide[channel] = width
        return p.mul(x, p.reshape(gate, *wide))
    alike = [value for value in values if value.shape == x.shape]
    if kind in ("add", "mul"):
        return getattr(p, kind)(x, draw(st.sampled_from(alike)))
    if kind == "concat":
        return p.concat(x, draw(st.sampled_from(values)), axis=channel)
    kernel = draw(st.sampled_from([1, 3]))
    return p.conv(x, name, draw(st.integers(2, 5)), kernel=kernel, padded=kernel == 3, bias=draw(st.booleans()), last=last)


def random_masks(draw, p: Pencil) -> dict:
    masks = {}
    for name in dict.fromkeys(path.rpartition(".")[0] for path in p.numbers):
        out = len(p.numbers[f"{name}.weight"])
        rows = draw(st.lists(st.integers(0, out - 1), max_size=out, unique=True))
        masks |= masked(p, name, *rows, bias=draw(st.booleans()))
    return masks


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_the_shrunk_network_computes_what_the_masked_one_does(data):
    p = random_network(data.draw)
    masks = random_masks(data.draw, p)
    x = np.random.default_rng(1).normal(size=p.graph.inputs[0].shape)

    found = propagate(p.graph, masks)
    expected = run(p.graph, masked_parameters(p.graph, masks), [x])[0]
    small = run(p.graph, shrunk_parameters(p.graph, masks, found), [x], found.shapes)[0]

    np.testing.assert_allclose(small, expected, atol=1e-9 * max(1.0, np.abs(expected).max()))


def test_the_property_is_not_vacuous():
    """A random network often loses parameters, and a wrong plan would change its output."""
    lost = []

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def count(data):
        p = random_network(data.draw)
        lost.append(bool(propagate(p.graph, random_masks(data.draw, p)).plan.groups))

    count()
    assert np.mean(lost) > 0.3
