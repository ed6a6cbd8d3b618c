"""A program as a torch module."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.property.masking import inputs, numbers
from tests.property.programs import Program, Step, Value, distances

ACTS = {
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "shifted": lambda x: x * 0.5 + 1.0,
    "softmax": lambda x: x.softmax(-1),
}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {
    ("max", 4): functional.max_pool2d,
    ("max", 5): functional.max_pool3d,
    ("average", 4): functional.avg_pool2d,
    ("average", 5): functional.avg_pool3d,
}
CONVOLVED = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
PAIRS = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "max": torch.maximum}


class Network(nn.Module):
    """Runs a program's steps; layers and bare parameters are attributes under their names."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.steps, self.loose = program.steps, program.loose
        for name, (step, read) in program.layers().items():
            made = _made(step, read)
            if name in program.loose:
                _hold(self, made, f"{name}_")
            else:
                setattr(self, name, Held(step, made) if name in program.held else made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for step in self.steps:
            result = OPS[step.op](self, step, *(values[number] for number in step.inputs))
            values.extend(result if isinstance(result, (tuple, list)) else [result])
        return values[-1]


class Held(nn.Module):
    """A layer of the user's own, which calls a function with parameters that it holds."""

    def __init__(self, step: Step, module: nn.Module) -> None:
        super().__init__()
        self.step = step
        _hold(self, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _function(self, self.step, x)


def _hold(holder: nn.Module, module: nn.Module, prefix: str = "") -> None:
    """Let a module hold the parameters and buffers of another one."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(getattr(module, name, None), nn.Parameter):
            holder.register_parameter(prefix + name, getattr(module, name))
        else:
            holder.register_buffer(prefix + name, getattr(module, name, None))


def _function(holder: nn.Module, step: Step, x: torch.Tensor, prefix: str = "") -> torch.Tensor:
    a, (weight, bias, mean, variance) = (
        step.attrs,
        (getattr(holder, prefix + name) for name in ("weight", "bias", "running_mean", "running_var")),
    )
    if step.op == "linear":
        return functional.linear(x, weight, bias)
    if step.op == "conv":
        return CONVOLVED[x.dim() - 2](x, weight, bias, padding=a["kernel"] // 2 if a["padded"] else 0, groups=a["groups"])
    if step.op == "transposed":
        return (functional.conv_transpose2d if x.dim() == 4 else functional.conv_transpose3d)(x, weight, bias, stride=2)
    if step.op == "batch_norm":
        return functional.batch_norm(x, mean, variance, weight, bias)
    if step.op == "group_norm":
        return functional.group_norm(x, a["groups"], weight, bias)
    return functional.layer_norm(x, x.shape[-1:], weight, bias)


class Shared(nn.Module):
    """Attention in which several heads of queries read one of the keys and values; torch has none, so users write it."""

    def __init__(self, width: int, source: int, heads: int, shared: int, size: int, bias: bool) -> None:
        super().__init__()
        self.size, self.shared = size, shared
        self.q = nn.Linear(width, heads * size, bias=bias)
        self.k = nn.Linear(source, heads // shared * size, bias=bias)
        self.v = nn.Linear(source, heads // shared * size, bias=bias)
        self.out_proj = nn.Linear(heads * size, width, bias=bias)

    def forward(self, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        q, k, v = (
            layer(value).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for layer, value in ((self.q, x), (self.k, source), (self.v, source))
        )
        k, v = (value.repeat_interleave(self.shared, 1) for value in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _attention(a: dict, width: int, source: int) -> nn.Module:
    if a["shared"] > 1:
        return Shared(width, source, a["heads"], a["shared"], a["size"], a["bias"])
    return nn.MultiheadAttention(width, a["heads"], bias=a["bias"], kdim=source, vdim=source, batch_first=a["first"])


def _attend(net: Network, step: Step, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    a, layer = step.attrs, getattr(net, step.layer)
    mask = torch.full((x.shape[1], source.shape[1]), -torch.inf).triu(1) if a["causal"] else None
    if a["shared"] > 1:
        return layer(x, source, mask)
    if a["first"]:
        return layer(x, source, source, need_weights=a["weights"], attn_mask=mask)[0]
    turned = x.transpose(0, 1)
    other = turned if source is x else source.transpose(0, 1)
    return layer(turned, other, other, need_weights=a["weights"], attn_mask=mask)[0].transpose(0, 1)


def _encoder(a: dict, width: int) -> nn.Module:
    options = {"batch_first": a["first"], "norm_first": a["early"], "bias": a["bias"]}
    return nn.TransformerEncoderLayer(width, a["heads"], a["inner"], 0.0, a["function"], **options)


def _encode(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    layer = getattr(net, step.layer)
    return layer(x) if step.attrs["first"] else layer(x.transpose(0, 1)).transpose(0, 1)


def _made(step: Step, read: Value) -> nn.Module | nn.Parameter:
    a, width, rank = step.attrs, read.channels, len(read.shape) - 2
    if step.op == "conv":
        padding = a["kernel"] // 2 if a["padded"] else 0
        return CONVS[rank](width, a["out"], a["kernel"], padding=padding, groups=a["groups"], bias=a["bias"])
    if step.op == "transposed":
        return (nn.ConvTranspose2d if rank == 2 else nn.ConvTranspose3d)(width, a["out"], 2, stride=2)
    if step.op == "linear":
        return nn.Linear(width, a["out"], bias=a["bias"])
    if step.op == "batch_norm":
        return BATCH_NORMS.get(rank, nn.BatchNorm1d)(width)
    if step.op == "group_norm":
        return nn.GroupNorm(a["groups"], width)
    if step.op == "layer_norm":
        return nn.LayerNorm(width)
    if step.op == "recurrent":
        return getattr(nn, a["cell"])(width, a["units"], batch_first=True, bidirectional=a["both"])
    if step.op == "embedding":
        return nn.Embedding(a["rows"], a["width"])
    if step.op == "attention":
        return _attention(a, width, a["source"])
    if step.op == "encoder":
        return _encoder(a, width)
    if step.op == "placed":
        return nn.Parameter(torch.zeros(read.shape[1:]))
    if step.op == "relative":
        return nn.Parameter(torch.zeros(2 * read.shape[2] - 1, read.shape[1]))
    return nn.Parameter(torch.zeros((width, a["out"]) if step.op == "bare" else (width,)))


def _layer(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    return _function(net, step, x, f"{step.layer}_") if step.layer in net.loose else getattr(net, step.layer)(x)


def _bare(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    weight = getattr(net, step.layer)
    return x @ weight if step.attrs["how"] == "matmul" else torch.einsum("...c,cd->...d", x, weight)


def _scaled(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    vector = getattr(net, step.layer)
    return x * (vector.view(1, -1, *(1 for _ in range(x.dim() - 2))) if step.attrs["first"] else vector)


def _relative(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    return x + getattr(net, step.layer)[torch.tensor(distances(x.shape[-1]))].permute(2, 0, 1)


def _reduce(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    function = torch.sum if step.attrs["function"] == "sum" else torch.mean
    return function(x, step.attrs["axes"], keepdim=step.attrs["keep"])


def _flatten(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    last = step.attrs["order"] == "NHWC" and step.attrs["first"]
    return (x.permute(0, *range(2, x.dim()), 1) if last else x).flatten(1)


def _slice(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    a = step.attrs
    return x[(slice(None),) * a["axis"] + (slice(a["start"], a["stop"], a["step"]),)]


def _gather(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    return x[(slice(None),) * step.attrs["axis"] + (list(step.attrs["index"]),)]


def _stack(net: Network, step: Step, *xs: torch.Tensor) -> torch.Tensor:
    joined = torch.stack(xs, 1)
    return joined.sum(1) if step.attrs["function"] == "sum" else joined.mean(1)


def _shuffle(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    groups, channels = step.attrs["groups"], x.shape[1]
    return x.reshape(x.shape[0], groups, channels // groups, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def _matmul(net: Network, step: Step, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ (b.transpose(-1, -2) if step.attrs["turned"] else b)


def _pool(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    return POOLS[step.attrs["function"], x.dim()](x, 2)


OPS = {
    **dict.fromkeys(("conv", "transposed", "linear", "batch_norm", "group_norm", "layer_norm"), _layer),
    **{name: lambda net, step, a, b: PAIRS[step.op](a, b) for name in PAIRS},
    "act": lambda net, step, x: ACTS[step.attrs["function"]](x),
    "recurrent": lambda net, step, x: getattr(net, step.layer)(x)[0],
    "embedding": _layer,
    "attention": _attend,
    "encoder": _encode,
    "tied": lambda net, step, x: x @ getattr(net, step.attrs["table"]).weight.t(),
    "placed": lambda net, step, x: x + getattr(net, step.layer),
    "relative": _relative,
    "reduce": _reduce,
    "matmul": _matmul,
    "bare": _bare,
    "scaled": _scaled,
    "transpose": lambda net, step, x: x.permute(step.attrs["order"]),
    "flatten": _flatten,
    "tokens": lambda net, step, x: x.flatten(2).transpose(1, 2),
    "concat": lambda net, step, *xs: torch.cat(xs, step.attrs["axis"]),
    "chunk": lambda net, step, x: x.chunk(step.attrs["count"], step.attrs["axis"]),
    "slice": _slice,
    "gather": _gather,
    "select": lambda net, step, x: x.select(step.attrs["axis"], step.attrs["index"]),
    "stack": _stack,
    "heads": lambda net, step, x: x.unflatten(-1, (-1, step.attrs["size"])).transpose(1, 2),
    "merged": lambda net, step, x: x.transpose(1, 2).flatten(2),
    "pool": _pool,
    "resize": lambda net, step, x: functional.interpolate(x, scale_factor=2, mode="nearest"),
    "pixels": lambda net, step, x: functional.pixel_shuffle(x, 2),
    "pad": lambda net, step, x: functional.pad(x, (1, 1) * (x.dim() - 2)),
    "shuffle": _shuffle,
}


def build(program: Program) -> tuple[nn.Module, torch.Tensor]:
    """Return the program's model, its numbers set, and its example inputs."""
    model = Network(program).eval()
    paths = {f"{layer}_{name}": f"{layer}.{name}" for layer in program.loose for name in ("weight", "bias", "running_mean", "running_var")}
    with torch.no_grad():
        for path, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(numbers(paths.get(path, path), tuple(tensor.shape), program.seed))))
    for path, parameter in model.named_parameters():
        if paths.get(path, path).partition(".")[0] in program.frozen:
            parameter.requires_grad_(False)
    return model, torch.from_numpy(inputs(program))


def learning(model: nn.Module) -> set[tuple[str, bool]]:
    """Return which layers have parameters that are trained, and which have frozen ones."""
    return {(path.partition(".")[0], parameter.requires_grad) for path, parameter in model.named_parameters()}
