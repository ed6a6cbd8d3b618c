"""A recipe of several stages: prune, train, cut, distil, one after the other.

stages:
  - name: attention
    config_list: [{algorithm: movement, op_partial_names: attention, granularity: head, sparsity: 0.5}]
    train: {epochs: 1}
    speedup: true
  - name: distil
    config_list: [{algorithm: kl, temperature: 2}]
    teacher: attention
    train: {epochs: 1}
"""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, StrictBool, StrictStr, field_validator, model_validator

from nnc_schemas.problems import problem, short
from nnc_schemas.selector import Selector
from nnc_schemas.values import Count

#: What a run writes itself.
_OWN = ("stages.json", "stages.part")


class Train(BaseModel):
    """How long to train: epochs, or steps of the optimizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count | None = Field(None, description="How often the trainer's data are run through.")
    steps: Count | None = Field(None, description="How many steps the optimizer makes.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Train:
        if (self.epochs is None) == (self.steps is None):
            raise problem("epochs or steps is needed, and only one of them.")
        return self


class Rounds(BaseModel):
    """A schedule: the entries' sparsity is reached in so many rounds, each trained as `train` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr = Field("agp", description="linear, agp, lottery_ticket, simulated_annealing, auto_compress, amc.")
    rounds: Count = Field(10, description="How many rounds there are.")
    options: dict[str, Any] = Field(default_factory=dict, description="The schedule's own options.")


class Stage(BaseModel):
    """One stage: what its config_list puts on the model, training, and whether what is masked then leaves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StrictStr = Field(min_length=1, description="The stage's name, and that of its folder.")
    algorithm: StrictStr | None = Field(None, description="The algorithm of every entry that names none.")
    config_list: tuple[SerializeAsAny[Selector], ...] = Field((), description="The entries; without any the stage only trains.")
    train: Train | None = Field(None, description="How long to train; without it nothing is trained.")
    schedule: Rounds | None = Field(None, description="Prune in rounds.")
    teacher: StrictStr | None = Field(None, description="The stage whose model teaches; without it the stage's own first model.")
    speedup: StrictBool = Field(False, description="Whether what is masked leaves the model at the end of the stage.")
    calibrate: StrictBool = Field(False, description="Whether quantizers then measure the ranges of activations again.")
    export: StrictStr | None = Field(None, description="The .onnx file, in the run's folder, that the model is then written to.")

    @field_validator("name", "export")
    @classmethod
    def _stays_in_the_folder(cls, value: str | None) -> str | None:
        parts = () if value is None else PureWindowsPath(value).parts  # knows both kinds of slash
        if value is not None and (PureWindowsPath(value).anchor or ".." in parts or not parts or value in _OWN):
            raise problem(f"{short(value)} is no name of something new in the run's folder.")
        return value

    @model_validator(mode="after")
    def _does_something(self) -> Stage:
        if not self.config_list and self.train is None:
            raise problem(f"the stage {self.name!r} does nothing: give config_list, train or both.")
        if self.schedule is not None and not self.config_list:
            raise problem(f"the stage {self.name!r} has a schedule and no config_list: there is nothing to prune.")
        if self.calibrate and (not self.config_list or self.schedule is not None):
            raise problem(f"the stage {self.name!r} calibrates, but no entry of its config_list quantises.")
        return self
