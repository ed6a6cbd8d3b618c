"""Every quantizer that is registered keeps the contract of nnc.testing, on the example networks of both frameworks."""

from dataclasses import replace

import pytest

from nnc import testing
from nnc.registry import registry
from nnc_quantization import STEQuantizer

QUANTIZERS = [each.cls for each in registry().algorithms if each.cls.kind == "quantize"]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda quantizer: quantizer.name)
def test_every_quantizer_keeps_its_promises(quantizer):
    testing.check_quantizer(quantizer)


def broken(**methods):
    return type("Broken", (STEQuantizer,), {"__doc__": "A quantizer with a fault.", **methods})


def wider(self):
    return {site: replace(grid, scale=1.5 * grid.scale) for site, grid in STEQuantizer.grids(self).items()}


@pytest.mark.parametrize(
    ("methods", "promise"),
    [
        ({"grids": lambda self: {}}, r"Broken on \w+: broken promise: the model is seen on the grids that it names: .* no tensor"),
        ({"grids": wider}, "is seen as numbers that are not on its grid"),
        ({"unwrap_model": lambda self: self.model}, r"unwrap_model\(\) leaves other views on the model"),
        ({"__doc__": ""}, "docstring"),
    ],
)
def test_a_broken_promise_is_named(methods, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_quantizer(broken(**methods))
