"""Names of layers that a framework numbers on: built again in one process, `dense_2` is `dense_7`.

A saved folder lists its layers in order. Where the model that it is loaded into has as many, of the same names but for such numbers, each
saved name stands for the layer in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"_\d+(?![^/.])")


def new_names(saved: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """Return what saved layers, and those around them, are called in the model, where that differs; `{}` where the two are not alike."""
    if [_NUMBER.sub("", name) for name in saved] != [_NUMBER.sub("", name) for name in own]:
        return {}
    pairs = zip((name.split(".") for name in saved), (name.split(".") for name in own), strict=True)
    found = {".".join(old[:depth]): ".".join(new[:depth]) for old, new in pairs for depth in range(1, len(old) + 1)}
    return {old: new for old, new in found.items() if old != new}


def path_now(path: str, names: Mapping[str, str]) -> str:
    """Return the path of a layer, or of a tensor in it, under the new name of the innermost layer that has one."""
    parts = path.split(".")
    starts = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    start = next((start for start in starts if start in names), "")
    return names[start] + path[len(start) :] if start else path


def plan_now(plan: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a plan, as `Plan.to_dict` writes it, under new names. What stayed, and why, is text and keeps the names of then."""
    groups = [
        {"members": [{**member, "tensor": path_now(member["tensor"], names)} for member in group["members"]]} for group in plan["groups"]
    ]
    layers = {key: [{**item, "layer": path_now(item["layer"], names)} for item in plan[key]] for key in ("sizes", "reshapes")}
    return {**plan, **layers, "groups": groups, "biases": [path_now(layer, names) for layer in plan["biases"]]}
