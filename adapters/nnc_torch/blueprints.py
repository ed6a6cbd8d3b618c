"""Plain data from which a model's architecture is built again: for transformers, its class and its config."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from nnc.errors import StorageError
from nnc.graph.plan import Plan
from nnc_torch.configs import as_built, is_transformers
from nnc_torch.forward import rewrite
from nnc_torch.surgery import shrink


def blueprint(model: nn.Module) -> dict[str, Any] | None:
    """Return transformers' class name, config and the plans that cut the model since; None for a class that is not transformers' own."""
    name = type(model).__name__
    if not is_transformers(model) or getattr(sys.modules["transformers"], name, None) is not type(model):
        return None
    plans = [plan.to_dict() for plan in getattr(model, "_nnc_plans", ())]
    config = as_built(model, json.loads(model.config.to_json_string(use_diff=False)))
    return {"transformers": name, "config": config, "plans": plans}


def rebuild(blueprint: Mapping[str, Any]) -> nn.Module:
    """Return a fresh model in inference mode, as from_pretrained gives it, cut as the plans say.

    Raises StorageError where transformers is missing or has no such class.
    """
    try:
        import transformers

        cls = getattr(transformers, blueprint["transformers"])
    except (ImportError, AttributeError, KeyError) as error:
        name = blueprint.get("transformers")
        raise StorageError(f"the saved model is transformers' {name}, which cannot be built here: {error}") from error
    model = cls._from_config(cls.config_class.from_dict(blueprint["config"]))
    for plan in map(Plan.from_dict, blueprint["plans"]):
        model = shrink(model, plan, {}, {})
        for reshape in plan.reshapes:
            if reshape.rewrite:
                rewrite(model, reshape)
    return model.eval()
