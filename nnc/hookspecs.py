"""The hooks through which plug-ins register: the built-in ones and a third party's alike.

A plug-in is a module named by an entry point in the group `nnc`. It must be cheap to import: a framework is imported only
inside `load`, never with the plug-in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from nnc.algorithm import Algorithm
    from nnc.schedules import Schedule

hookspec = pluggy.HookspecMarker("nnc")
hookimpl = pluggy.HookimplMarker("nnc")


@hookspec
def nnc_register_adapters(register: Callable[..., None]) -> None:
    """Call `register(framework, recognises=..., load=..., extra=...)` for each framework.

    `recognises(model) -> bool` must look frameworks up in `sys.modules` only; `load() -> type[Adapter]` may import them;
    `extra` is the name of nnc-toolkit's extra that installs the framework.
    """


@hookspec
def nnc_register_algorithms(register: Callable[[type[Algorithm]], None]) -> None:
    """Call `register(MyPruner)` for each algorithm class; its `name` is what a config_list calls it."""


@hookspec
def nnc_register_schedules(register: Callable[[type[Schedule]], None]) -> None:
    """Call `register(MySchedule)` for each schedule class; its `name` is what `nnc.ScheduledPruner` calls it."""


@hookspec
def nnc_register_demos(register: Callable[..., None]) -> None:
    """Call `register(framework, load=...)`; `load() -> nnc.demo.Demo` gives the small network of `nnc demo` on that framework."""


@hookspec
def nnc_register_examples(register: Callable[..., None]) -> None:
    """Call `register(framework, build, trainer=None)` for the contracts of `nnc.testing`.

    `build() -> (model, example_inputs)` gives a small network; `trainer() -> nnc.Trainer` trains it in a few steps, for algorithms that
    need a trainer.
    """


@hookspec
def nnc_register_files(register: Callable[[str, Callable[[Any], Any]], None]) -> None:
    """Call `register(suffix, load)` for each file format of a framework's own; `load(path) -> model` serves `nnc layers model.keras`."""


@hookspec
def nnc_register_operations(register: Callable[..., None]) -> None:
    """Call `register(op, rule, transfer=None)` for an operation that nnc does not know; `op` is the name under which it is reported.

    `rule(node, axes)` states which axes belong together (nnc/graph/axes.py) and must pin what the operation sums over or mixes;
    `transfer(node, values)` says where zeros and constants pass (nnc/graph/values.py). `nnc.testing.check_rule` tries a rule.
    """


@hookspec
def nnc_register_formats(register: Callable[[str, Callable[[], Any]], None]) -> None:
    """Call `register(name, load)` for each file format that models are deployed in; `load() -> nnc.export.Format` writes and checks it."""
