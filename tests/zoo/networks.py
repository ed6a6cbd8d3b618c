"""One small network for each connection that real networks have: name -> (model, example inputs)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def noise(*shape: int) -> torch.Tensor:
    """Return random numbers, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Attended(nn.Module):
    """nn.MultiheadAttention between linear layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, **options)
        self.before, self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 48), nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.down(functional.gelu(self.up(x)))


class Encoded(nn.Module):
    """nn.TransformerEncoderLayer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x))


class Gated(nn.Module):
    """A gated linear unit by chunk, then einsum with a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 48)
        self.mix = nn.Parameter(torch.zeros(24, 20))
        self.down = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(functional.relu(torch.einsum("bti,io->bto", value * gate.sigmoid(), self.mix)))


class Tied(nn.Module):
    """A language model whose embedding is its head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.up, self.down = nn.Linear(24, 64), nn.Linear(64, 24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        return self.head(x + self.down(functional.relu(self.up(x))))


class ShuffledChannels(nn.Module):
    """ShuffleNet's channel shuffle between grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=4), nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        b, c, h, w = x.shape
        x = x.reshape(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(functional.relu(self.last(functional.relu(self.second(x)))).mean((2, 3)))


class Squeezed(nn.Module):
    """Squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.norm(self.stem(x)))
        gate = self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.last(x * gate)


class Mixer(nn.Module):
    """MLP-Mixer: a layer over the tokens, one over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.token_up, self.token_down = nn.Linear(16, 40), nn.Linear(40, 16)
        self.up, self.down = nn.Linear(24, 56), nn.Linear(56, 24)
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(2))
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.token_down(functional.gelu(self.token_up(self.norms[0](x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.down(functional.gelu(self.up(self.norms[1](x))))
        return self.head(x.mean(1))


class CalledTwice(nn.Module):
    """One layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.middle(functional.relu(self.middle(functional.relu(self.first(x)))))))


class Recurrent(nn.Module):
    """A recurrent layer between linear ones."""

    def __init__(self, cell: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.before, self.cell = nn.Linear(8, 16), cell(16, 12, batch_first=True)
        self.up, self.last = nn.Linear(24 if self.cell.bidirectional else 12, 32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.up(self.cell(functional.relu(self.before(x)))[0])))


class Packed(Recurrent):
    """A recurrent layer on sequences of different lengths."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.before(x).relu(), torch.tensor([3, 6]), batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)
        return self.last(functional.relu(self.up(y)))


class Stepped(nn.Module):
    """A cell that the user's own loop runs."""

    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.last = cell(8, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.last(state[0] if isinstance(state, tuple) else state)


class Translated(nn.Module):
    """A decoder that starts from the state of an encoder, and from one that the user's code makes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 12
        self.encoder, self.decoder, self.last = nn.LSTM(8, 12), nn.LSTM(8, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(1, x.shape[1], self.hidden)
        _, (h, _) = self.encoder(x, (start, start))
        return self.last(self.decoder(x, (h, start))[0])


class FusedHeads(nn.Module):
    """timm's attention: one qkv layer, reshaped and unbound."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.num_heads, self.head_dim = 4, 8
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self.head(x + self.proj(y))


class OwnHeads(nn.Module):
    """Attention by hand, with the number of heads as a literal in a lambda."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(32, 32) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        b, n, _ = x.shape
        by_head = lambda y: y.view(b, n, 4, 8).transpose(1, 2)  # noqa: E731
        q, k, v = by_head(self.query(normed)), by_head(self.key(normed)), by_head(self.value(normed))
        mixed = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        return self.head(x + self.output(mixed.transpose(1, 2).reshape(b, n, -1)))


class EinsumHeads(nn.Module):
    """Attention by chunk, unflatten and einsum."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.qkv, self.output = nn.Linear(32, 96, bias=False), nn.Linear(32, 32)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in self.qkv(self.norm(x)).chunk(3, -1))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return self.head(x + self.output(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)))


class Dense(nn.Module):
    """DenseNet: everything is concatenated, then flattened with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        blocks = (nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 4, 3, padding=1)) for w in (8, 12, 16))
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(20 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.cat([x, block(x)], 1)
        return self.head(functional.max_pool2d(x, 4).permute(0, 2, 3, 1).flatten(1))


class Shuffled(nn.Module):
    """ShuffleNetV2: half of the channels pass by, then all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 5, 1)
        self.units = nn.ModuleList(self.unit() for _ in range(2))

    @staticmethod
    def unit() -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for unit in self.units:
            passed, worked = x.chunk(2, 1)
            x = torch.cat([passed, unit(worked)], 1)
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(x)


class PythonSlices(nn.Module):
    """Slices whose bounds stand in the code, in steps and of several axes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 24), nn.Linear(12, 16), nn.Linear(16, 5)
        self.other = nn.Linear(6, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.first(x))
        z = self.other(y[1:3, ::2, 8:20:2]) + self.second(y[:2, 1:4, ::2])
        return self.third(functional.relu(self.second(y[..., ::2]) + self.second(y[..., 12:]))[:2, :3] + z)


class Scaled(nn.Module):
    """A number that equals a count of channels and is none: the code divides by it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_channels = 24
        self.first, self.second = nn.Linear(8, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(functional.relu(self.first(x)).reshape(*x.shape[:-1], -1) / self.hidden_channels**0.5)


class Decoded(nn.Module):
    """nn.TransformerDecoderLayer: a causal mask, and attention to a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.layer(x, memory, tgt_mask=mask, tgt_is_causal=True))


def image() -> torch.Tensor:
    return noise(2, 3, 16, 16)


def _grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(48, 5, 1))


class Clipped(nn.Module):
    """What a layer gives is clipped between bounds that are tensors, and scaled by what is counted over truth values."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 5)
        self.register_buffer("low", torch.tensor(-0.5))
        self.register_buffer("high", torch.tensor(0.8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(x.shape[:2], dtype=torch.bool)
        places = (~hidden).cumsum(1)
        clipped = torch.clamp(self.up(x), self.low, self.high).clamp_min(self.low / 2)
        return self.down(clipped * places[..., None] * 0.1)


def _depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(24, 5, 1))


def _transposed() -> nn.Module:
    up = nn.ConvTranspose2d(16, 12, 2, stride=2)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), up, nn.ReLU(), nn.Conv2d(12, 5, 1))


def _normalised() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 24, 3), nn.ReLU(), nn.Conv2d(24, 5, 1))


def _line() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 12, 3), nn.ReLU(), nn.Conv1d(12, 5, 1))


def _volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 16, 3), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 12, 3), nn.ReLU(), nn.Conv3d(12, 5, 1))


def _pixels() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(8, 5, 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "multihead-attention": (Attended, lambda: noise(2, 6, 8)),
    "multihead-attention-kv": (lambda: Attended(bias=False), lambda: noise(2, 6, 8)),
    "transformer-encoder": (Encoded, lambda: noise(2, 6, 32)),
    "glu-einsum": (Gated, lambda: noise(2, 6, 16)),
    "tied-embedding": (Tied, lambda: torch.arange(12).reshape(2, 6)),
    "pixel-shuffle": (_pixels, image),
    "channel-shuffle": (ShuffledChannels, image),
    "squeeze-excite": (Squeezed, image),
    "mlp-mixer": (Mixer, image),
    "grouped": (_grouped, image),
    "depthwise-multiplier": (_depthwise, image),
    "conv-transpose": (_transposed, image),
    "conv1d": (_line, lambda: noise(2, 3, 16)),
    "conv3d": (_volume, lambda: noise(2, 3, 8, 8, 8)),
    "group-norm": (_normalised, image),
    "called-twice": (CalledTwice, lambda: noise(2, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: noise(2, 6, 8)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: noise(2, 6, 8)),
    "gru-two-layers": (lambda: Recurrent(partial(nn.GRU, num_layers=2)), lambda: noise(2, 6, 8)),
    "lstm-both-ways": (lambda: Recurrent(partial(nn.LSTM, num_layers=2, bidirectional=True)), lambda: noise(2, 6, 8)),
    "rnn": (lambda: Recurrent(partial(nn.RNN, nonlinearity="relu", bias=False)), lambda: noise(2, 6, 8)),
    "packed-lstm": (lambda: Packed(nn.LSTM), lambda: noise(2, 6, 8)),
    "lstm-cell": (lambda: Stepped(nn.LSTMCell), lambda: noise(2, 6, 8)),
    "gru-cell": (lambda: Stepped(nn.GRUCell), lambda: noise(2, 6, 8)),
    "encoder-decoder-lstm": (Translated, lambda: noise(5, 2, 8)),
    "fused-qkv": (FusedHeads, lambda: noise(2, 6, 32)),
    "own-heads": (OwnHeads, lambda: noise(2, 6, 32)),
    "einsum-heads": (EinsumHeads, lambda: noise(4, 4, 32)),
    "einsum-two-heads": (lambda: EinsumHeads(2), lambda: noise(4, 4, 32)),
    "transformer-decoder": (Decoded, lambda: (noise(2, 6, 32), noise(2, 5, 32))),
    "densenet": (Dense, lambda: noise(2, 3, 16, 16)),
    "shufflenet-v2": (Shuffled, image),
    "scaled": (Scaled, lambda: noise(2, 8)),
    "clipped": (Clipped, lambda: noise(2, 6, 8)),
    "python-slices": (PythonSlices, lambda: noise(4, 6, 8)),
}
