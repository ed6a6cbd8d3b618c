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
PAIRS = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "max": torch.maximum}


class Network(nn.Module):
    """Runs a program's steps; layers and bare parameters are attributes under their names."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.steps = program.steps
        for name, (step, read) in program.layers().items():
            setattr(self, name, _made(step, read))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for step in self.steps:
            result = OPS[step.op](self, step, *(values[number] for number in step.inputs))
            values.extend(result if isinstance(result, (tuple, list)) else [result])
        return values[-1]


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
    if step.op == "placed":
        return nn.Parameter(torch.zeros(read.shape[1:]))
    if step.op == "relative":
        return nn.Parameter(torch.zeros(2 * read.shape[2] - 1, read.shape[1]))
    return nn.Parameter(torch.zeros((width, a["out"]) if step.op == "bare" else (width,)))


def _layer(net: Network, step: Step, x: torch.Tensor) -> torch.Tensor:
    return getattr(net, step.layer)(x)


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
    with torch.no_grad():
        for path, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(numbers(path, tuple(tensor.shape), program.seed))))
    for name in program.frozen:
        getattr(model, name).requires_grad_(False)
    return model, torch.from_numpy(inputs(program))


def learning(model: nn.Module) -> set[tuple[str, bool]]:
    """Return which layers have parameters that are trained, and which have frozen ones."""
    return {(path.partition(".")[0], parameter.requires_grad) for path, parameter in model.named_parameters()}
