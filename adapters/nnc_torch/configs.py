"""The config of a transformers model, in step with the small model where one number can say it.

    every attention has 2 heads of 4 left, every feed-forward layer 64 of 128      num_attention_heads = 2, intermediate_size = 64
    the first attention has 2 heads left, the second 3                             left at 4, and the report says so

`nnc.save` writes the numbers that the user's model was built from, and the plans: a config alone cannot say all that a plan does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from nnc_torch.layers import layers_of

#: Fields that hold the width of feed-forward layers and of nothing else.
_FEED_FORWARD = frozenset(
    ["d_ff", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim", "ffn_hidden_size", "intermediate_size", "mlp_dim", "n_inner"],
)
#: Fields that hold the width of layers.
_WIDTHS = _FEED_FORWARD | {"d_model", "dim", "embed_dim", "embedding_size", "hidden_dim", "hidden_size", "hidden_sizes", "n_embd"}
#: Under which name a small model keeps the fields that changed, as they were: {"text_config.hidden_size": 64}.
BEFORE = "_nnc_config_before"

#: (place, size or number before, and now)
Change = tuple[str, int, int]


def is_transformers(model: nn.Module) -> bool:
    """Say whether a model is one of transformers', without importing it."""
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def follow(model: nn.Module, small: nn.Module) -> tuple[str, ...]:
    """Set what the configs of a small model say of its sizes; return what they cannot say. The user's own configs stay as they are."""
    if not is_transformers(small):
        return ()
    names = _names(small.config)
    before: dict[str, Any] = dict(getattr(model, BEFORE, {}))
    notes: list[str] = []
    originals = dict(model.named_modules(remove_duplicate=False))
    for path, config in _configs(small):
        modules = list(_pairs(originals, small, path))
        heads, groups, widths = list(_heads(modules)), list(_key_value_heads(modules)), list(_widths(modules))
        for field, value in list(vars(config).items()):
            changes = heads if _speaks_of_heads(field) else widths if field in _WIDTHS else []
            changes = groups if "key" in field and _speaks_of_heads(field) else _of_stack(field, changes)
            new = _new(value if value is not None or field != "n_inner" else 4 * config.n_embd, changes)
            alone = sum(vars(config).get(other) == value for other in _WIDTHS) <= 1
            if new is None and alone and _differ(field, value, changes):
                notes.append(f"config.{field} stays {value}, since the layers differ: {_listed(value, changes)}")
            elif new is not None and new != value and (value is not None or new != 4 * config.n_embd):
                before.setdefault(f"{names.get(id(config), '?')}{field}", value)
                setattr(config, field, new)
    setattr(small, BEFORE, before)
    return tuple(dict.fromkeys(notes))


def as_built(model: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
    """Return a config, as plain data, with the numbers from which the user's model was built."""
    for path, value in getattr(model, BEFORE, {}).items():
        *outer, field = path.split(".")
        place = config
        for name in outer:
            place = place.get(name, {})
        if field in place:
            place[field] = value
    return config


def _names(config: Any, prefix: str = "") -> dict[int, str]:
    """Return where each config within a config stands: "" for itself, "text_config." for a part."""
    found = {id(config): prefix}
    for name, value in vars(config).items():
        if hasattr(value, "to_json_string"):
            found |= {key: path for key, path in _names(value, f"{prefix}{name}.").items() if key not in found}
    return found


def _configs(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield each config object with the first module that holds it."""
    seen: set[int] = set()
    for path, module in layers_of(model):
        config = vars(module).get("config")
        if hasattr(config, "to_json_string") and id(config) not in seen:
            seen.add(id(config))
            yield path, config


def _pairs(originals: Mapping[str, nn.Module], small: nn.Module, path: str) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield each module at and under a path: its own path, as it was, and as it is."""
    for name, module in layers_of(small.get_submodule(path)):
        whole = ".".join(filter(None, (path, name)))
        yield whole, originals[whole], module


def _widths(modules: list[tuple[str, nn.Module, nn.Module]]) -> Iterator[Change]:
    for path, old, new in modules:
        for name, parameter in new._parameters.items():
            was = old._parameters.get(name)
            if parameter is not None and was is not None:
                yield from ((path, *sizes) for sizes in zip(was.shape, parameter.shape, strict=True))


def _speaks_of_heads(name: str) -> bool:
    words = set(name.split("_"))
    return bool(words & {"head", "heads"}) and not words & {"dim", "size"}


def _heads(modules: list[tuple[str, nn.Module, nn.Module]]) -> Iterator[Change]:
    """Yield the numbers of heads: as the modules hold them, or as many as their queries have."""
    for path, old, new in modules:
        held = [name for name, value in vars(new).items() if type(value) is int and _speaks_of_heads(name) and "key" not in name]
        yield from ((path, vars(old)[name], vars(new)[name]) for name in held if name in vars(old))
        if not held:
            yield from _projected(path, old, new, "q_proj")


def _key_value_heads(modules: list[tuple[str, nn.Module, nn.Module]]) -> Iterator[Change]:
    for path, old, new in modules:
        yield from _projected(path, old, new, "k_proj")


def _projected(path: str, old: nn.Module, new: nn.Module, name: str) -> Iterator[Change]:
    """Yield how many heads of `head_dim` a projection has."""
    dim, layers = vars(new).get("head_dim"), [module._modules.get(name) for module in (old, new)]
    if isinstance(dim, int) and all(isinstance(layer, nn.Linear) for layer in layers):
        before, after = (int(layer.weight.shape[0]) // dim for layer in layers)
        yield path, before, after


def _of_stack(field: str, changes: list[Change]) -> list[Change]:
    """Keep what is the encoder's for `encoder_ffn_dim`, the decoder's for `decoder_attention_heads`."""
    stack = next((word for word in field.split("_") if word in ("encoder", "decoder")), None)
    return changes if stack is None else [change for change in changes if stack in change[0].split(".")]


def _new(value: Any, changes: list[Change]) -> Any:
    """Return what a field must become, or None where its number is no size, or where no one number says it."""
    if isinstance(value, list | tuple):
        each = [_new(item, changes) for item in value]
        return None if None in each or not each else type(value)(each)
    if type(value) is not int:
        return None
    now = {new for _, old, new in changes if old == value}
    return now.pop() if len(now) == 1 else None


def _differ(field: str, value: Any, changes: list[Change]) -> bool:
    """Tell whether layers that had the field's size differ now; another width that happened to be equal does not count."""
    now = {new for _, old, new in changes if old == value}
    return len(now) > 1 and (_speaks_of_heads(field) or field in _FEED_FORWARD or value not in now)


def _listed(value: Any, changes: list[Change]) -> str:
    sizes: Mapping[str, int] = {path: new for path, old, new in changes if old == value}
    shown = [f"{path}: {size}" for path, size in list(sizes.items())[:4]]
    return ", ".join(shown) + (", ..." if len(sizes) > 4 else "")
