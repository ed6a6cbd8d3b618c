"""Who is there: the frameworks and the algorithms that plug-ins register, the built-in ones and a third party's alike.

A plug-in is a module behind an entry point of the group `nnc`. All of them are read once, at the first question, and none may
import a framework by that: `adapter_for` loads the adapter of the one framework that recognises the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from nnc import hookspecs
from nnc.errors import ConfigError, MissingFramework, ModelError, NncError, nearest

if TYPE_CHECKING:
    from nnc.adapter import Adapter
    from nnc.algorithm import Algorithm
    from nnc.schedules import Schedule

Record = TypeVar("Record")

#: The first name of a class's module -> the extra that brings the framework of its instances.
_PACKAGES = {"torch": "torch", "keras": "tensorflow", "tf_keras": "tensorflow", "tensorflow": "tensorflow", "onnx": "onnx"}


@dataclass(frozen=True)
class Framework:
    """A framework as its plug-in registered it; `extra` is nnc-toolkit's extra that installs it."""

    name: str
    recognises: Callable[[Any], bool]
    load: Callable[[], type[Adapter]]
    extra: str
    plugin: str

    def adapter(self) -> type[Adapter]:
        """Import the adapter. Raises `MissingFramework` where something that it needs is not installed."""
        try:
            return self.load()
        except ImportError as error:
            raise MissingFramework(f"the adapter for {self.name} cannot be imported: {error}. {_install(self.extra)}") from error


@dataclass(frozen=True)
class Registered:
    """An algorithm as `nnc algorithms` lists it; `summary` is the first sentence of its docstring."""

    name: str
    cls: type[Algorithm]
    plugin: str

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]


@dataclass(frozen=True)
class Operation:
    """What a plug-in knows of an operation: its rule over axes, and how values pass it (None: nothing is known behind it)."""

    rule: Callable[[Any, Any], None]
    transfer: Callable[[Any, Any], None] | None
    plugin: str


@dataclass(frozen=True)
class Registry:
    """What a set of plug-ins has registered."""

    frameworks: tuple[Framework, ...]
    algorithms: tuple[Registered, ...]
    demos: dict[str, Callable[[], Any]]
    examples: dict[str, Callable[[], tuple[Any, Any]]]
    files: dict[str, Callable[[Any], Any]]
    operations: dict[str, Operation]
    formats: dict[str, Callable[[], Any]]
    schedules: dict[str, type[Schedule]]
    trainers: dict[str, Callable[[], Any]]


def adapter_for(model: Any) -> Adapter:
    """Return the adapter of the framework that recognises `model`.

    Raises `ModelError` for a model of no known framework, `MissingFramework` where the framework is known and not installed.
    """
    framework = recognise(model)
    if framework is None:
        raise _stranger(model)
    return framework.adapter()(model)


def recognise(model: Any) -> Framework | None:
    """Return the framework that `model` belongs to, or None."""
    return next((framework for framework in registry().frameworks if framework.recognises(model)), None)


def algorithm(name: str, place: str = "algorithm") -> type[Algorithm]:
    """Return the class of an algorithm. Raises `ConfigError` that begins with `place` and names the nearest one."""
    known = {record.name: record.cls for record in registry().algorithms}
    if name not in known:
        raise ConfigError(f"{place}: {name!r} is no algorithm{nearest(str(name), known)}. `nnc algorithms` lists them all.")
    return known[name]


def schedule_class(name: str, place: str = "schedule") -> type[Schedule]:
    """Return the class of a schedule. Raises `ConfigError` that begins with `place` and names the nearest one."""
    known = registry().schedules
    if name not in known:
        raise ConfigError(f"{place}: {name!r} is no schedule{nearest(str(name), known)}. There are {', '.join(sorted(known))}.")
    return known[name]


@cache
def registry() -> Registry:
    """Return what all installed plug-ins have registered. Raises `NncError` that names a plug-in which is broken or doubled."""
    manager = pluggy.PluginManager("nnc")
    manager.add_hookspecs(hookspecs)
    seen: dict[str, EntryPoint] = {}
    for entry in entry_points(group="nnc"):
        if entry.name in seen:
            raise NncError(f"plug-in {entry.name!r} is given twice: by {_origin(seen[entry.name])} and by {_origin(entry)}. Uninstall one.")
        seen[entry.name] = entry
        _register(manager, entry.name, _load(entry))
    return collect(manager)


def collect(manager: pluggy.PluginManager) -> Registry:
    """Ask every plug-in of `manager` what it has. Raises `NncError` where one is broken or two claim one name."""
    # A Keras model on the torch backend is a torch Module too, so torch is asked last.
    frameworks = sorted(_answers(manager, "nnc_register_adapters", _framework), key=lambda found: found.extra == "torch")
    algorithms = sorted(_answers(manager, "nnc_register_algorithms", _algorithm), key=lambda found: found.name)
    examples = _answers(manager, "nnc_register_examples", lambda plugin, framework, build, trainer=None: (framework, build, trainer))
    _refuse_doubles("framework", [(found.name, found.plugin) for found in frameworks])
    _refuse_doubles("algorithm", [(found.name, found.plugin) for found in algorithms])
    return Registry(
        tuple(frameworks),
        tuple(algorithms),
        dict(_answers(manager, "nnc_register_demos", lambda plugin, framework, load: (framework, load))),
        {framework: build for framework, build, _ in examples},
        dict(_answers(manager, "nnc_register_files", lambda plugin, suffix, load: (suffix, load))),
        dict(_answers(manager, "nnc_register_operations", _operation)),
        dict(_answers(manager, "nnc_register_formats", lambda plugin, name, load: (name, load))),
        dict(_answers(manager, "nnc_register_schedules", lambda plugin, cls: (cls.name, cls))),
        {framework: trainer for framework, _, trainer in examples if trainer is not None},
    )


def _framework(plugin: str, framework: str, *, recognises: Any, load: Any, extra: str) -> Framework:
    return Framework(framework, recognises, load, extra, plugin)


def _operation(plugin: str, op: str, rule: Any, transfer: Any = None) -> tuple[str, Operation]:
    return op, Operation(rule, transfer, plugin)


def _algorithm(plugin: str, cls: type[Algorithm]) -> Registered:
    if not isinstance(getattr(cls, "name", None), str):
        raise TypeError(f"{cls!r} has no `name` for config_lists to call it by")
    return Registered(cls.name, cls, plugin)


def _answers(manager: pluggy.PluginManager, hook: str, make: Callable[..., Record]) -> list[Record]:
    """Return `make(plug-in's name, ...)` for every `register(...)` that the plug-ins call in answer to `hook`."""
    records: list[Record] = []
    plugins = manager.list_name_plugin()
    for name, plugin in plugins:
        # One plug-in at a time, so that an error and a record know whose they are.
        ask = manager.subset_hook_caller(hook, [other for _, other in plugins if other is not plugin])
        try:
            ask(register=lambda *given, _name=name, **named: records.append(make(_name, *given, **named)))
        except Exception as error:
            raise NncError(f"plug-in {name!r} fails in {hook}: {type(error).__name__}: {error}") from error
    return records


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        remedy = f"Repair or uninstall {_origin(entry)}."
        raise NncError(f"plug-in {entry.name!r} cannot be imported: {type(error).__name__}: {error}. {remedy}") from error


def _register(manager: pluggy.PluginManager, name: str, plugin: Any) -> None:
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (ValueError, pluggy.PluginValidationError) as error:
        raise NncError(f"plug-in {name!r} cannot be registered: {error}") from error


def _refuse_doubles(what: str, claims: Sequence[tuple[str, str]]) -> None:
    first: dict[str, str] = {}
    for name, plugin in claims:
        if name in first:
            raise NncError(f"{what} {name!r} is registered twice: by plug-in {first[name]!r} and by plug-in {plugin!r}. Uninstall one.")
        first[name] = plugin


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _stranger(model: Any) -> NncError:
    known = ", ".join(found.name for found in registry().frameworks) or "none"
    if isinstance(model, type):
        return ModelError(f"the model is the class {model.__qualname__} itself; pass an instance: {model.__qualname__}(...).")
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    framework = next((name for name in map(_framework_of, type(model).__mro__) if name), None)
    if framework and framework not in {found.extra for found in registry().frameworks}:
        return MissingFramework(f"the model is a {kind}, and no plug-in for {framework} is installed. {_install(framework)}")
    return ModelError(f"the model is a {kind}, which is no model of a framework that nnc knows ({known}).")


def _framework_of(cls: type) -> str | None:
    return _PACKAGES.get(cls.__module__.partition(".")[0])


def _install(extra: str) -> str:
    return f"Install it: pip install 'nnc-toolkit[{extra}]'."
