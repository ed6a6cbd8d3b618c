"""Sizes that stand neither in a call of the layer's own method nor in one of its numbers: in functions, in lists, and in what it keeps."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch.adapter import TorchAdapter


def attention(x, qkv, bias, projection, heads):
    """Attention over windows, with the head's width computed from the input's."""
    n, length, width = x.shape
    q, k, v = functional.linear(x, qkv, bias).reshape(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = q * (width // heads) ** -0.5 @ k.transpose(-2, -1)
    scores = scores.view(n, heads, length, length).softmax(-1)
    return functional.linear((scores @ v).transpose(1, 2).reshape(n, length, width), projection.weight, projection.bias)


class Block(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.projection = nn.LayerNorm(24), nn.Linear(24, 72, bias=False), nn.Linear(24, 24)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(24)), nn.Parameter(torch.randn(24))
        self.register_buffer("k_bias", torch.zeros(24))

    def forward(self, x):
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        return x + attention(self.norm(x), self.qkv.weight, bias, self.projection, self.heads)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = Block(4), Block(4), Block(2)

    def forward(self, x):
        return self.third(self.second(self.first(x)))


class Branches(nn.Module):
    """A third of the channels passes, the others go through convolutions; where to split stands in a list."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.up, self.down = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 5, 1)
        self.rows, self.columns = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8), nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=8)

    def forward(self, x):
        kept, rows, columns = torch.split(self.up(x), self.parts, dim=1)
        return self.down(torch.cat((kept, self.rows(rows), self.columns(columns)), 1))


class SplitByVariable(Branches):
    def forward(self, x):
        parts = [8] * 3
        kept, rows, columns = self.up(x).split(parts, 1)
        return self.down(torch.cat((kept, self.rows(rows), self.columns(columns)), 1))


def shrunk(make, x):
    torch.manual_seed(0)
    model = make().eval()
    speedup = nnc.ModelSpeedup(model, x, L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose())
    small = speedup.speedup_model()
    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
    return small, speedup


def test_heads_leave_where_a_function_computes_their_width(tmp_path):
    x = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(0))
    small, _ = shrunk(Blocks, x)

    assert [block.qkv.out_features for block in (small.first, small.second, small.third)] == [36, 36, 36]
    nnc.save(small, tmp_path)
    assert torch.equal(nnc.load(tmp_path, model=Blocks)(x), small(x))


def test_a_deep_network_runs_no_more_often_than_a_shallow_one_until_its_code_fits(monkeypatch):
    runs, trace = [], TorchAdapter.trace
    monkeypatch.setattr(TorchAdapter, "trace", lambda *given: runs.append(1) or trace(*given))
    counts = []
    for depth in (3, 9):
        runs.clear()
        shrunk(lambda depth=depth: nn.Sequential(*(Block(4) for _ in range(depth))), torch.randn(2, 6, 24))
        counts.append(len(runs))

    assert counts[1] == counts[0]


def test_lists_that_say_where_to_split_follow(tmp_path):
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    small, speedup = shrunk(lambda: Branches((8, 8, 8)), x)

    assert small.parts == next(size.new for size in speedup.plan.sizes if size.attribute == "parts")
    assert isinstance(small.parts, tuple) and sum(small.parts) == 12
    assert "parts: (8, 8, 8) -> " in str(speedup.plan)
    nnc.save(small, tmp_path)
    again = nnc.load(tmp_path, model=lambda: Branches((8, 8, 8)))
    assert again.parts == small.parts
    assert torch.equal(again(x), small(x))


def test_a_list_keeps_its_kind_and_a_variable_is_rewritten():
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    assert isinstance(shrunk(lambda: Branches([8, 8, 8]), x)[0].parts, list)
    assert shrunk(lambda: SplitByVariable([8, 8, 8]), x)[0].parts == [8, 8, 8]


class KeepsBiases(nn.Module):
    """Keeps what it gathered from a table of biases, for the next pass, as LeViT does."""

    def __init__(self):
        super().__init__()
        self.qkv, self.projection = nn.Linear(16, 96), nn.Linear(32, 5)
        self.biases = nn.Parameter(torch.randn(4, 6))
        self.register_buffer("places", (torch.arange(6)[:, None] - torch.arange(6)).abs())
        self.kept = {}
        self.scales = {"q": torch.tensor(0.5)}

    def forward(self, x):
        if "cpu" not in self.kept:
            self.kept["cpu"] = self.biases[:, self.places]
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, -1, 8).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * self.scale() + self.kept["cpu"]
        return self.projection((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def scale(self):
        return 0.5


class NeedsWhatItKeeps(KeepsBiases):
    def scale(self):
        return self.scales["q"]


@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "after a pass"])
def test_what_a_layer_keeps_of_its_weights_is_made_anew_for_fewer_heads(ran):
    torch.manual_seed(0)
    model, x = KeepsBiases().eval(), torch.randn(2, 6, 16)
    del model.scales
    if ran:
        with torch.no_grad():
            model(x)
    before = dict(model.kept)

    c = nnc.compress(model, [{"sparsity": 0.5}], example_inputs=x)
    small = c.speedup()

    report = c.report()
    assert report.difference <= 1e-6 and report.plan.kept == ()
    assert small.biases.shape == (2, 6) and small.kept == {}
    assert model.kept == before


def test_tensors_that_a_layer_keeps_and_does_not_make_stay_where_they_are():
    torch.manual_seed(0)
    model, x = NeedsWhatItKeeps().eval(), torch.randn(2, 6, 16)

    c = nnc.compress(model, [{"sparsity": 0.5}], example_inputs=x)

    assert c.speedup().scales == {"q": torch.tensor(0.5)}
    assert model.scales == {"q": torch.tensor(0.5)} and model.kept == {}
