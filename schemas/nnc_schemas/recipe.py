"""A recipe: what `nnc compress` needs beside the command line, as a YAML or JSON file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, StrictBool, StrictStr

from nnc_schemas.selector import Selector
from nnc_schemas.values import Shapes


class Recipe(BaseModel):
    """A config_list, and where a command line finds the model.

    `model`, `example_inputs` and `output` serve the command line; `nnc.compress` takes the model from its caller.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: StrictStr | None = Field(None, description="The algorithm of every entry that names none.")
    config_list: tuple[SerializeAsAny[Selector], ...] = Field(description="The entries; a later one overrides an earlier one.")
    model: StrictStr | None = Field(None, description="What builds the model: `file.py:build` or `package.module:build`.")
    example_inputs: Shapes | None = Field(None, description="The inputs' shapes: [[2, 1, 28, 28]]; 2,16:int64 for whole numbers.")
    allow_inexact: StrictBool = Field(False, description="Offer widths that a mean is taken over, as under a LayerNorm, too.")
    output: StrictStr | None = Field(None, description="The folder to save to, or a file: small.onnx, small.tflite.")
