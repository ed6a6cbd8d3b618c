"""The specs that a user writes, as pydantic models; the JSON Schema is generated from them.

This package imports nothing of nnc, so an editor, a web page or a CI job can check a recipe without a framework.
"""

from nnc_schemas.problems import SpecError
from nnc_schemas.prune import PruneSpec
from nnc_schemas.read import json_schema, parse_config_list, parse_recipe, parse_stages
from nnc_schemas.recipe import Recipe
from nnc_schemas.selector import Selector
from nnc_schemas.stages import Stage

__all__ = ["PruneSpec", "Recipe", "Selector", "SpecError", "Stage", "json_schema", "parse_config_list", "parse_recipe", "parse_stages"]
