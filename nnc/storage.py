"""A compressed model in a folder: `model.safetensors` and the plans that made it as `nnc.json`. No pickle.

    nnc.save(small, "out/lenet")
    small = nnc.load("out/lenet", model=LeNet)        # in a fresh process: the original class, an instance, or a builder

Loading builds the user's original architecture, cuts it as the plans say, and fills in the numbers.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nnc.adapter import Adapter, Masks
from nnc.errors import ConfigError, StorageError, nearest
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc.registry import adapter_for, recognise, registry
from nnc.renamed import new_names, path_now, plan_now

FORMAT = 1
_TENSORS = "model.safetensors"
_INDEX = "nnc.json"
_MASK = "mask::"


def save(model: Any, folder: str | PathLike[str]) -> None:
    """Write a model, masks included, to `folder`; either all of it is there afterwards, or nothing has changed.

    Raises `StorageError` where the folder holds something else, or cannot be written.
    """
    from safetensors.numpy import save_file

    target = Path(folder)
    adapter = adapter_for(model)
    _refuse_foreign(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            made = Path(scratch, target.name)
            made.mkdir()
            save_file(_all_tensors(adapter), made / _TENSORS)
            (made / _INDEX).write_text(json.dumps(_index(adapter, made / _TENSORS), indent=1), encoding="utf-8")
            _move(made, target)
    except OSError as error:
        raise StorageError(f"{target}: the model cannot be written: {error}.") from error


def load(folder: str | PathLike[str], model: Any = None) -> Any:
    """Return the model that `save` wrote.

    `model` is the original architecture: an instance, its class, or a function without arguments that builds it. Keras
    Functional and Sequential models need none. An instance is filled in place where nothing had been cut from it.
    Raises `StorageError` for a folder that is missing, truncated, foreign, or of another framework; `ConfigError` where
    `model` is missing or does not have the saved architecture.
    """
    source = Path(folder)
    index = _read_index(source)
    tensors = _read_tensors(source, index)
    # Everything is read and checked before the user's model is built or filled.
    if model is None:
        adapter, names = _rebuilt(source, index), dict[str, str]()
    else:
        adapter, names = _cut(source, index, model)
    adapter.load_tensors({path_now(path, names): array for path, array in tensors.items() if not path.startswith(_MASK)})
    masks = {path_now(layer, names): given for layer, given in _masks(tensors).items()}
    if masks:
        adapter.set_masks(masks)
    return adapter.model


def holds(folder: str | PathLike[str], model: Any) -> bool:
    """Tell whether a model has the weights and masks that `save` wrote to a folder. Counters and states of random numbers may differ."""
    source, adapter = Path(folder), adapter_for(model)
    index = _read_index(source)
    if adapter.framework != index["framework"]:
        return False
    names = new_names(index.get("layers", ()), _layers(adapter))
    saved, now = _telling(_read_tensors(source, index), names), _telling(_all_tensors(adapter), {})
    return saved.keys() == now.keys() and all(_same(array, now[path]) for path, array in saved.items())


def fingerprint(model: Any) -> str:
    """Return a digest of a model's weights and masks. Counters and states of random numbers do not tell."""
    digest = sha256()
    for path, array in sorted(_telling(_all_tensors(adapter_for(model)), {}).items()):
        digest.update(f"{path} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _telling(tensors: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """Return masks and what is no whole number, by the paths that they have now."""
    found = {path_now(path, names): array for path, array in tensors.items() if not path.startswith(_MASK) and array.dtype.kind not in "iu"}
    masks = ((path_now(layer, names), key, mask) for layer, given in _masks(tensors).items() for key, mask in given.items())
    return found | {f"{_MASK}{layer}::{key}": mask for layer, key, mask in masks}


def _same(one: Array, other: Array) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype) and one.tobytes() == other.tobytes()


def require_same_tensors(wanted: Mapping[str, Sequence[int]], given: Mapping[str, Array]) -> None:
    """Check saved arrays against the shapes that a model's stored tensors have, by path; adapters call it before they set any.

    Raises `StorageError` that names what is missing, left over, or misshapen.
    """
    faults = [f"the model has no {path}{nearest(path, wanted)}" for path in given if path not in wanted]
    faults += [f"{path} is missing" for path in wanted if path not in given]
    faults += [
        f"{path} has shape {tuple(array.shape)}, the model's has {tuple(wanted[path])}"
        for path, array in given.items()
        if path in wanted and tuple(array.shape) != tuple(wanted[path])
    ]
    if faults:
        listed = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise StorageError(f"the saved tensors are not this model's: {listed}. Build the model as it was when it was pruned.")


def _all_tensors(adapter: Adapter) -> dict[str, Array]:
    """Return the model's tensors and, as bytes under names of their own, its masks."""
    masks = {f"{_MASK}{layer}::{key}": mask for layer, given in adapter.masks().items() for key, mask in given.items()}
    bits = {name: mask.astype("uint8") for name, mask in masks.items()}
    # safetensors writes a view's memory as it lies, so every array has to lie in order.
    return {name: array.copy(order="C") for name, array in {**adapter.tensors(), **bits}.items()}


def _masks(tensors: Mapping[str, Array]) -> Masks:
    masks: Masks = {}
    for name, array in tensors.items():
        if name.startswith(_MASK):
            layer, _, key = name.removeprefix(_MASK).rpartition("::")
            masks.setdefault(layer, {})[key] = array.astype(bool)
    return masks


def _index(adapter: Adapter, tensors: Path) -> dict[str, Any]:
    import nnc

    return {
        "format": FORMAT,
        "nnc": nnc.__version__,
        "framework": adapter.framework,
        "model": type(adapter.model).__qualname__,
        "sha256": _digest(tensors),
        "plans": [plan.to_dict() for plan in adapter.plans()],
        "layers": _layers(adapter),
        "blueprint": adapter.blueprint(),
    }


def _layers(adapter: Adapter) -> list[str]:
    """Return the names of layers, in order: also of those that have no parameters and store something, as a generator's state."""
    return list(dict.fromkeys([*(layer.name for layer in adapter.layers()), *(path.rpartition(".")[0] for path in adapter.tensors())]))


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _refuse_foreign(target: Path) -> None:
    """Nothing but an empty folder, or what nnc wrote before, is written over."""
    if target.exists() and not target.is_dir():
        raise StorageError(f"{target}: is a file; nnc.save writes a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / _INDEX).is_file():
        raise StorageError(f"{target}: the folder holds other files and no {_INDEX}; choose a new or empty folder.")


def _move(scratch: Path, target: Path) -> None:
    """Put the finished files in place: the index last, for it vouches for the tensors. A new folder comes whole."""
    if not target.exists():
        os.replace(scratch, target)
        return
    for name in (_TENSORS, _INDEX):
        os.replace(scratch / name, target / name)


def _read_index(source: Path) -> dict[str, Any]:
    path = source / _INDEX
    if not path.is_file():
        what = f"has no {_INDEX}, so nnc.save did not write it" if source.is_dir() else "is no folder"
        raise StorageError(f"{source}: {what}.")
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written = index["format"]
        missing = {"framework", "sha256", "plans", "blueprint", "nnc"} - index.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: is truncated, or nnc.save did not write it: {error!r}.") from None
    if written != FORMAT:
        raise StorageError(f"{path}: has format {written!r}; this nnc reads {FORMAT}. Upgrade to nnc {index.get('nnc')}.")
    if missing:
        raise StorageError(f"{path}: lacks {', '.join(sorted(missing))}; nnc.save did not write it.")
    return index


def _read_tensors(source: Path, index: Mapping[str, Any]) -> dict[str, Array]:
    from safetensors.numpy import load_file

    path = source / _TENSORS
    if not path.is_file():
        raise StorageError(f"{path}: is missing; {_INDEX} is there without it.")
    if _digest(path) != index["sha256"]:
        raise StorageError(f"{path}: is truncated or altered: its SHA-256 is not the one in {_INDEX}.")
    return load_file(path)


def _rebuilt(source: Path, index: Mapping[str, Any]) -> Adapter:
    """Return the model that its blueprint describes; it is small already."""
    name, blueprint = index["framework"], index["blueprint"]
    if blueprint is None:
        raise ConfigError(f"model: {source} holds a {index.get('model')}, whose code is not saved. Pass model=, its class or builder.")
    framework = next((found for found in registry().frameworks if found.name == name), None)
    if framework is None:
        raise StorageError(f"{source}: holds a model of {name!r}, and no plug-in for that is installed.")
    adapter = adapter_for(framework.adapter().rebuild(blueprint))
    adapter.remember(_plans(source, index))
    return adapter


def _cut(source: Path, index: Mapping[str, Any], model: Any) -> tuple[Adapter, dict[str, str]]:
    """Return the user's original architecture, cut as the plans say, and what saved layers are called in it, where that differs."""
    adapter = adapter_for(_instance(model))
    if adapter.framework != index["framework"]:
        raise StorageError(f"{source}: holds a model of {index['framework']!r}; the model given is of {adapter.framework!r}.")
    names = new_names(index.get("layers", ()), _layers(adapter))
    plans, made = _plans(source, index, names), adapter.plans()
    # A model that is small already needs only what was cut after that.
    for plan in plans[len(made) :] if plans[: len(made)] == made else plans:
        _require_fit(plan, adapter)
        adapter = adapter_for(adapter.shrink(plan, {}, {}))
        for reshape in plan.reshapes:
            if reshape.rewrite:
                adapter.rewrite(reshape)
    return adapter, names


def _instance(model: Any) -> Any:
    if recognise(model) is not None or not callable(model):
        return model
    try:
        inspect.signature(model).bind()
    except TypeError as error:
        raise ConfigError(f"model: {model!r} cannot be called without arguments: {error}. Pass a function that builds the model.") from None
    return model()


def _plans(source: Path, index: Mapping[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> tuple[Plan, ...]:
    try:
        return tuple(Plan.from_dict(plan_now(plan, names)) for plan in index["plans"])
    except (KeyError, TypeError) as error:
        raise StorageError(f"{source / _INDEX}: has a plan that this nnc cannot read: {error!r}.") from None


def _require_fit(plan: Plan, adapter: Adapter) -> None:
    """Raise `ConfigError` where the model has not the parameters that the plan cuts."""
    # Buffers, which layers do not list, are vectors: their own layout is the canonical one.
    stored = {name: array.shape for name, array in adapter.tensors().items()}
    shapes = stored | {f"{layer.name}.{key}".lstrip("."): shape for layer in adapter.layers() for key, shape in layer.parameters.items()}
    # A bias that the plan makes is as long as its weight has rows.
    shapes |= {f"{layer}.bias".lstrip("."): shapes.get(f"{layer}.weight".lstrip("."), ())[:1] for layer in plan.biases}
    for (tensor, axis), members in plan.axes().items():
        end = max(member.start + member.outer * member.size * member.inner for member in members)
        size = shapes.get(tensor, ())[axis : axis + 1]
        if not size or size[0] < end:
            found = f"of shape {shapes[tensor]}" if tensor in shapes else "missing"
            raise ConfigError(f"model: has another architecture than the saved one: {tensor} is {found}; axis {axis} had {end} or more.")
