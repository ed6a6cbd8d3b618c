"""Networks as .onnx files: exported from the tests' torch networks, with parameters under their names in torch."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx

from tests.frameworks import FRAMEWORKS


def exported(model, inputs, opset=20):
    """Return a torch model as a ModelProto in which every operation is still as torch gave it."""
    import torch

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        program = torch.onnx.export(
            model.eval(), inputs, dynamo=True, optimize=False, external_data=False, verbose=False, opset_version=opset
        )
        program.save(path)
        return onnx.load(path)


def network(name, array):
    """Return one of the tests' networks in torch and as a ModelProto."""
    model = FRAMEWORKS["torch"].build(name)
    return model, exported(model, (FRAMEWORKS["torch"].inputs(array),))


def randomised(model, seed=0):
    """Give a torch model numbers none of which is zero or one, and return it."""
    import torch

    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(_numbers(name, tuple(tensor.shape), generator)))
    return model.eval()


def _numbers(name, shape, generator):
    if "var" in name:
        return generator.uniform(0.5, 1.5, shape).astype("float32")
    return generator.normal(0, 1 / np.sqrt(max(1, np.prod(shape[1:]))), shape).astype("float32")


def relative(left, right):
    """Return the largest difference relative to the largest number."""
    return float(np.abs(left - right).max() / np.abs(right).max())
