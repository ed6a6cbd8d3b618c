"""A model as one file that another runtime runs.

    adapter writes float ONNX -> tidied -> Q/DQ by layer, as `grids` say -> opened in the runtime: kernels, outputs, speed -> moved in place

What differs between file formats stands behind `Format`, which a plug-in registers with `nnc_register_formats`. The file appears under
its name when it is complete and checked; after an error there is none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from nnc.adapter import Adapter, TrainableAdapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, StorageError, nearest
from nnc.graph.ir import Array, Shape
from nnc.grid import Grid, Grids
from nnc.latency import Latency
from nnc.registry import adapter_for, registry
from nnc.views import Site

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The key of a node's metadata under which an adapter notes the layer that the node belongs to.
LABEL = "nnc.layer"
_GRIDS = "{Site(layer, 'weight' | 'input' | 'output'): Grid(...)}"


@dataclass(frozen=True)
class Order:
    """What a file shall be; see `export`."""

    example_inputs: Any = None
    opset: int | None = None
    grids: Grids = field(default_factory=dict)
    dynamic: bool = False
    reference: tuple[Array, ...] | None = None
    data: Any = None
    force: bool = False

    @property
    def quantised(self) -> bool:
        return bool(self.grids) or self.dynamic


@dataclass(frozen=True)
class Placed:
    """Which kernel computes a layer: `kernel` is the runtime's name for it, `reason` says why it is no integer one."""

    layer: str
    kernel: str
    reason: str = ""


@dataclass(frozen=True)
class ExportResult:
    """What was written, and what the runtime makes of it.

    `difference` is the largest absolute difference between the file's outputs and what they were compared with (`compared_with`),
    relative to the largest output. `latency` sets the float model against the file, both in the same runtime on one thread; `bytes`
    and `float_bytes` are the sizes of the files. Both float figures are None where the file is the float model.
    """

    path: Path
    format: str
    bytes: int
    difference: float
    compared_with: str
    opset: int | None = None
    placed: tuple[Placed, ...] = ()
    float_bytes: int | None = None
    latency: Latency | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, ready for JSON; latencies in seconds."""
        latency = self.latency
        return {
            "path": str(self.path),
            "format": self.format,
            "opset": self.opset,
            "bytes": self.bytes,
            "float_bytes": self.float_bytes,
            "difference": self.difference,
            "compared_with": self.compared_with,
            "placed": [{"layer": one.layer, "kernel": one.kernel, "reason": one.reason} for one in self.placed],
            "latency": None if latency is None else {"float": latency.before, "file": latency.after, "conditions": latency.conditions},
            "notes": list(self.notes),
        }

    def __rich__(self) -> RenderableType:
        from nnc.tables import export_table

        return export_table(self)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


class Format(Protocol):
    """A kind of file."""

    def write(self, adapter: Adapter, path: Path, order: Order) -> ExportResult:
        """Write the model, which is seen through nothing now, to `path`, check the file in its runtime, and say what came out.

        `path` lies in a folder of its own, in which the format may leave other files. Raises `ConfigError` for an order that the
        format cannot fulfil, `ExportError` where the file is not what was ordered.
        """
        ...


def export(
    model: Any,
    path: str | PathLike[str],
    example_inputs: Any = None,
    *,
    format: str | None = None,
    grids: Grids | None = None,
    dynamic: bool = False,
    opset: int | None = None,
    reference: Any = None,
    data: Any = None,
    force: bool = False,
) -> ExportResult:
    """Write `model` to the file `path` and check it in its runtime.

    `format` is "onnx", "tflite" or a plug-in's; by default what the path ends in says, and ONNX where it says nothing.
    `example_inputs` are what the model is traced, compared and timed on; the first axis is the batch, which stays free. `grids` say how
    layers are quantised, {Site(layer, "weight" | "input" | "output"): Grid}; without them the file is the float model. `dynamic` leaves
    the ranges of linear layers' inputs to be found at run time, 8 bits, and needs no grids. `reference` are the outputs on the example
    inputs to compare with, those of the fake-quantised model; the float model's by default. `data`, batches in a list, is what formats
    need that quantise by themselves ("tflite"). A quantised file that is slower than the float one is refused; `force` writes it.
    Raises `ConfigError`, `ExportError`, or `StorageError` where the file cannot be written; nothing half-written is left.
    """
    adapter = adapter_for(model)
    target = Path(path)
    writer = _format(target, format)
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int)):
        raise ConfigError(f"opset: {opset!r} is no whole number; give one such as 17, or None for the usual one.")
    if example_inputs is None:
        raise ConfigError("example_inputs: export runs the model, so it needs some: nnc.export(model, path, example_inputs=...).")
    grids = _known_grids(adapter, grids or {})
    _check_views(adapter, grids)
    compared = None if reference is None else tuple(to_numpy(each) for each in _sequence(reference))
    order = Order(example_inputs, opset, grids, dynamic, compared, data, force)
    with _beside(target) as scratch, plain(adapter):
        result = writer.write(adapter, scratch, order)
        os.replace(scratch, target)
    return replace(result, path=target)


def _format(target: Path, name: str | None) -> Format:
    """Return what writes a format, by default the one that the file is called as one of, else ONNX."""
    known, suffix = registry().formats, target.suffix.removeprefix(".").lower()
    called = suffix if suffix in known else None
    if name is not None and name not in known:
        raise ConfigError(f"format: {name!r} is none that nnc writes{nearest(name, known)}. There are {', '.join(sorted(known))}.")
    if name is not None and called not in (None, name):
        raise ConfigError(f"format: {name!r} was asked for, and {target.name!r} is called as one of {called!r}; give format={called!r}.")
    return cast(Format, known[name or called or "onnx"]())


def _sequence(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _known_grids(adapter: Adapter, grids: Any) -> dict[Site, Grid]:
    """Return the grids, or raise `ConfigError`; which tensors pass a layer only its graph tells."""
    if not isinstance(grids, Mapping):
        raise ConfigError(f"grids: {type(grids).__name__} is no dict; give {_GRIDS}.")
    parameters = {layer.name: layer.parameters for layer in adapter.layers()}
    for site, grid in grids.items():
        if not isinstance(site, Site) or not isinstance(grid, Grid):
            raise ConfigError(f"grids: {site!r}: {type(grid).__name__} is no entry; give {_GRIDS}.")
        shape = parameters.get(site.layer, {}).get(site.tensor, ())
        if site.is_parameter and not shape:
            names = [f"{layer}.{key}" for layer, held in parameters.items() for key in held]
            raise ConfigError(f"grids: the model has no parameter {str(site)!r}{nearest(str(site), names)}.")
        if site.is_parameter:
            _check_scale(site, grid, shape)
    return dict(grids)


def _check_scale(site: Site, grid: Grid, shape: Shape) -> None:
    """Raise `ConfigError` where a grid has not one scale for each channel, or for each block, of a parameter of this shape."""
    if grid.axis is None:
        return
    if grid.axis >= len(shape) or (grid.block and len(shape) != 2):
        raise ConfigError(f"grids: {site}: axis {grid.axis}, block {grid.block} do not go with a parameter of shape {tuple(shape)}.")
    wanted = (shape[0], -(-shape[1] // grid.block)) if grid.block else (shape[grid.axis],)
    if grid.scale.shape != wanted:
        raise ConfigError(f"grids: {site}: the scale has the shape {grid.scale.shape}; a parameter of shape {tuple(shape)} needs {wanted}.")


def _check_views(adapter: Adapter, grids: Grids) -> None:
    """Raise `ConfigError` where what passes a layer is seen through a view that the file would be without."""
    views = adapter.views() if hasattr(adapter, "views") else {}
    lost = [(site, each) for site, held in views.items() if not site.is_parameter and site not in grids for each in held]
    if lost:
        shown = ", ".join(f"{site} ({view.name})" for site, view in lost[:3]) + (", ..." if len(lost) > 3 else "")
        remedy = "c.export(path), c being what nnc.compress gave, writes them; c.unwrap() takes them off"
        raise ConfigError(f"model: the file would not have the views of what passes {shown}. {remedy}.")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a path in a new folder beside the target, so that the finished file is moved in one step; the folder is gone afterwards."""
    if os.path.isdir(target):
        raise StorageError(f"{target}: is a folder; give the path of a file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        raise StorageError(f"{target}: the file cannot be written: {error}.") from error
    with scratch as folder:
        try:
            yield Path(folder, target.name)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{target}: the file cannot be written: {error}.") from error


@contextmanager
def plain(adapter: Adapter) -> Iterator[None]:
    """Let a model's stored parameters be the effective ones for a while, seen through no masks and no views."""
    views = adapter.views() if hasattr(adapter, "views") else {}
    masks = adapter.masks()
    if not views and not masks:
        yield
        return
    if not hasattr(adapter, "write"):
        yield  # such an adapter's file holds the masks in its graph
        return
    ready = cast(TrainableAdapter, adapter)
    seen = {Site(layer, key) for layer, held in masks.items() for key in held} | {site for site in views if site.is_parameter}
    effective = {site: to_numpy(_parameter(adapter, site)) for site in seen}
    numbers = ready.numbers()
    before: dict[Site, Array] = {}
    try:
        ready.set_views({})
        ready.set_masks({})
        before = ready.write(effective)
        yield
    finally:
        ready.write(before)
        ready.set_masks(masks)
        ready.set_views(views)
        ready.set_numbers(numbers)


def _parameter(adapter: Adapter, site: Site) -> Any:
    layer: Any = next(layer for layer in adapter.layers() if layer.name == site.layer)
    return layer.seen(site.tensor)
