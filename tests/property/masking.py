"""The numbers and the masks of a program's model: the same in every framework, by the name of each parameter."""

from __future__ import annotations

from zlib import crc32

import numpy as np

import nnc
from nnc_pruning import L1NormPruner
from tests.property.programs import ROWS, Program

HALF = [{"sparsity": 0.5}]


def inputs(program: Program) -> np.ndarray:
    """Return the program's input as it defines it: an image or a line with its channels first."""
    if program.given.kind == "indices":
        return np.random.default_rng(program.seed).integers(0, ROWS, program.given.shape)
    return np.random.default_rng(program.seed).standard_normal(program.given.shape).astype("float32")


def numbers(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a parameter's numbers, by path and canonical shape; variances are positive, and nothing is zero or one."""
    draw = np.random.default_rng([crc32(path.encode()), seed])
    if path.endswith("running_var"):
        return draw.uniform(0.5, 1.5, shape).astype("float32")
    return (draw.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype("float32")


def masks_of(program: Program, model, example_inputs, last: bool = False) -> dict:
    """Return masks for a model of the program: of a pruner that knows the groups, of random rows, or of rows, columns and weights.

    `last`: weights that code of the user's holds have their outputs on the last axis, not on the first.
    """
    if program.masking == "joint":
        return L1NormPruner(model, HALF, example_inputs=example_inputs).propose()
    masks = {}
    for layer in nnc.layers(model):
        draw = np.random.default_rng([crc32(layer.name.encode()), program.seed])
        if layer.prunable and draw.random() < 0.8:
            masks[layer.name] = _random(program.masking, dict(layer.parameters), draw)
        elif layer.name in program.held and layer.name.startswith(("fc", "conv")) and draw.random() < 0.8:
            masks[layer.name] = _random(program.masking, dict(layer.parameters), draw, last)
    return masks


def _random(masking: str, shapes: dict, draw: np.random.Generator, last: bool = False) -> dict:
    weight = np.ones(shapes["weight"], bool).swapaxes(0, -1 if last else 0)
    rows = draw.random(weight.shape[0]) < 0.5
    weight[rows] = False
    if masking == "mixed":
        weight[:, draw.random(weight.shape[1]) < draw.choice([0.0, 0.5])] = False
        weight &= draw.random(weight.shape) >= draw.choice([0.0, 0.2])
    # A recurrent layer may hold two biases as one.
    bias = {"bias": ~rows} if shapes.get("bias") == rows.shape and draw.random() < 0.5 else {}
    return {"weight": weight.swapaxes(0, -1 if last else 0)} | bias
