"""ModelSpeedup: from a model and masks to a model that is really smaller and computes the same.

Trace the masked model, propagate, cut a copy, trace the small model, compare: first the shape of every operation's result with what the
plan says, then the outputs. A size that the user's code hard-codes shows in that comparison, and is rewritten in that one method.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from nnc.adapter import Adapter, Masks, Trace
from nnc.errors import ConfigError, NothingRemoved, SpeedupError, TraceError
from nnc.graph.held import Numbers, levels
from nnc.graph.ir import Array, Graph, Node
from nnc.graph.plan import Plan, Reshape, Size
from nnc.graph.propagate import Propagation, propagate
from nnc.masks import normalise, unmasked
from nnc.registry import adapter_for
from nnc.rounding import apart, magnification, tolerance

if TYPE_CHECKING:
    from nnc.report import Report


class ModelSpeedup:
    """Makes a small model that computes what the masked one does.

    `masks` are `{layer name: {"weight": array, "bias": array}}` of zeros and ones, as a pruner's `compress()` returns them; None takes
    those that the model is seen through now. `allow_inexact` removes masked widths that a mean is taken over, as under a LayerNorm,
    too: that moves the outputs. `plan` says what left, `difference` how far the outputs moved, relative to the largest, `seconds` the
    CPU time of each step: trace, plan, shrink, check.
    """

    def __init__(self, model: Any, example_inputs: Any, masks: Any = None, *, allow_inexact: bool = False) -> None:
        self._adapter = adapter_for(model)
        self._inputs = example_inputs
        self._allow_inexact = allow_inexact
        self.masks: Masks = self._adapter.masks() if masks is None else normalise(masks, self._adapter.layers())
        if not self.masks:
            raise ConfigError("masks: none are given and the model has none; run a pruner's compress() first, or pass masks=")
        self.plan = Plan()
        self.difference: float | None = None
        self.seconds: dict[str, float] = {}
        self._refuted: set[tuple[str, str]] = set()
        self.model: Any = None

    def speedup_model(self) -> Any:
        """Return the small model, a new object of the same class; the user's model stays as it is.

        Warns `NothingRemoved` where nothing can leave, and says why. Raises `TraceError` where the model does not run on the
        example inputs, `SpeedupError` where the small model is not what the plan promised.
        """
        with unmasked(self._adapter):
            with self._timed("trace"):
                trace = self._adapter.trace(self._inputs, self.masks)
            small, found = self._settled(trace)
        _warn(self.plan, found.emptied)
        self.model = small
        return small

    def _settled(self, trace: Trace) -> tuple[Any, Propagation]:
        """Return the small model and what made it.

        Where the small model fails, numbers that layers hold and that may be sizes change with it; where these turn out to be none (a
        channel count that the code also divides by), they stay, and in the end so do those that give the sizes of a reshape, whose code
        is rewritten instead; where a size cannot change, what hangs on it stays. What reads numbers that the code makes is held last.
        """
        ways, fixed = _ways(*levels(trace.graph.numbers)), dict[int, str]()
        while True:
            trace.graph.numbers, self._literally, may_keep = ways.pop(0)
            try:
                return self._until_it_fits(trace, may_keep, dict(fixed))
            except (_FixedSize, SpeedupError) as error:
                if isinstance(error, _Differs):
                    ways = [way for way in ways if not way[0]]
                    if not ways and not fixed:
                        fixed = _reading_made_numbers(trace.graph)
                        ways = [({}, True, True)] if fixed else []
                if not ways:
                    advice = self._advice(trace) if isinstance(error, _OutputsDiffer) else ""
                    raise SpeedupError(f"{error}{advice}") from error

    def _until_it_fits(self, trace: Trace, may_keep: bool, fixed: dict[int, str]) -> tuple[Any, Propagation]:
        """Attempt; each time that code fixes a size, keep what hangs on it and attempt again, if that is wanted."""
        while True:
            try:
                return self._attempted(trace, fixed)
            except _FixedSize as stuck:
                more = _more_to_fix(trace.graph, stuck.node, fixed)
                if not more or not may_keep:
                    raise
                fixed.update(dict.fromkeys(more, str(stuck)))

    def _attempted(self, trace: Trace, fixed: Mapping[int, str]) -> tuple[Any, Propagation]:
        with self._timed("plan"):
            found = self._noted(_propagated(trace.graph, self.masks, fixed, self._allow_inexact))
        with self._timed("check"):
            allowed = tolerance(trace)  # runs the masked model now, while there is no small one beside it in memory
        with self._timed("shrink"):
            small = self._adapter.shrink(found.plan, self.masks, found.folds)
        with self._timed("check"):
            try:
                self.plan, outputs = _settle(type(self._adapter)(small), self._inputs, trace.graph, found, self._literally)
                self.difference = _compare(trace.outputs, outputs, np.inf if self.plan.inexact else allowed)
            except _Differs:
                self._refuted |= _held(found.plan, trace.graph)
                raise
        return small, found

    def _advice(self, trace: Trace) -> str:
        """Say what to do about outputs that differ: a model that magnifies rounding lets nobody compare them."""
        step, moved = magnification(self._adapter, self._inputs, self.masks, trace)
        if moved <= tolerance(trace):
            return ". Please report it."
        why = f"this model magnifies rounding: where its inputs differ by {step:.0e}, its own outputs differ by {moved:.2g}"
        return f". But {why}. Build it in float64, prune it there, and convert the small one back."

    def _noted(self, found: Propagation) -> Propagation:
        """Note in the plan which attributes an earlier attempt changed in vain."""
        left = self._refuted - {(size.layer, size.attribute) for size in found.plan.sizes}
        if not left:
            return found
        names = ", ".join(sorted(f"{attribute} of {layer or 'the model'}" for layer, attribute in left))
        note = f"left as it was, since the small model does not compute the same with it changed: {names}"
        return replace(found, plan=replace(found.plan, notes=(note,)))

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = process_time()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + process_time() - start

    def report(self) -> Report:
        """Return the user's model and the small one side by side. Call `speedup_model()` first."""
        from nnc.report import report

        if self.model is None:
            raise ConfigError("report(): there is no small model yet; call speedup_model() first")
        return report(self._adapter.model, self.model, self._inputs, plan=self.plan, difference=self.difference)


def _ways(clear: Numbers, likely: Numbers, none: Numbers) -> list[tuple[Numbers, bool, bool]]:
    """Return in which order to try: which numbers that layers hold follow, whether code is rewritten even where they give a size, and
    whether what cannot change may stay. That comes last: nothing is kept that some way removes.
    """
    held = [(clear, False), *([(likely, False)] if likely != clear else []), *([(none, False)] if clear else []), (none, True)]
    return [(*way, False) for way in held] + [(*way, True) for way in held if way != (likely, False) or likely == clear]


def _reading_made_numbers(graph: Graph) -> dict[int, str]:
    """Return the nodes that read numbers which the code makes, as the slopes of ALiBi for so many heads: for fewer, it may make others."""
    made = (
        (number, node)
        for number, node in enumerate(graph.nodes)
        if any(tensor is not None and tensor.role == "constant" and prod(tensor.shape) > 1 for tensor in node.inputs)
    )
    return {number: f"{node.place} reads numbers that the code makes, and may make others for another size" for number, node in made}


def _more_to_fix(graph: Graph, stuck: int, fixed: Mapping[int, str]) -> set[int]:
    """Return the nodes of which no size may change any more; none where that has been tried.

    A node at which a small model differs may only show what another size did, as the kernel that torch chooses where values are as wide
    as keys. Then all of its layer stays.
    """
    around = {number for number, node in enumerate(graph.nodes) if node.layer == graph.nodes[stuck].layer}
    return next((nodes for nodes in ({stuck}, around) if not nodes <= fixed.keys()), set())


class _Differs(SpeedupError):
    """The small model runs, and computes something else."""


class _OutputsDiffer(_Differs):
    """What it gives in the end is something else."""


class _FixedSize(Exception):
    """The user's code fixes a size at a node (by number)."""

    def __init__(self, node: int, reason: str) -> None:
        super().__init__(reason)
        self.node = node


def _propagated(graph: Graph, masks: Masks, fixed: Mapping[int, str], allow_inexact: bool) -> Propagation:
    try:
        return propagate(graph, masks, fixed, allow_inexact)
    except ValueError as error:
        raise SpeedupError(f"the model's graph could not be read: {error}. This is a mistake in nnc; please report it.") from error


def _settle(adapter: Adapter, inputs: Any, graph: Graph, found: Propagation, literally: bool) -> tuple[Plan, tuple[Array, ...]]:
    """Trace the small model until every shape is the plan's; change one size that its code fixes each time it is not.

    `literally` changes the code even where an attribute gives the size.
    """
    plan, waiting = found.plan, dict(enumerate(found.plan.reshapes))
    while True:
        trace, error = _attempt(adapter, inputs)
        wrong = _first_wrong(graph, trace.graph, found, error)
        if wrong is None and error is None:
            if _held(plan, graph) or not plan.inexact:
                _check_numbers(graph, trace.graph, found, may_be_held=bool(plan.sizes) and not literally)
            plan = replace(plan, notes=(*plan.notes, *adapter.notes()))
            adapter.remember((*adapter.plans()[:-1], plan))
            return plan, trace.outputs
        place = _place(wrong, found, waiting, error)
        if place is None:
            raise _unsettled(graph, wrong, error)
        for number in (place, *_alike(place, plan, waiting)):
            try:
                plan = _rewritten(plan, number, adapter.rewrite(replace(waiting[number], rewrite=literally)))
                del waiting[number]
            except SpeedupError as stuck:
                if number == place:
                    raise _FixedSize(next(node for node, each in found.resized.items() if each == place), str(stuck)) from stuck


def _alike(place: int, plan: Plan, waiting: Collection[int]) -> list[int]:
    """Return the waiting reshapes of other layers that are made as the one at `place` is: what code fixes in one layer, it fixes in all.

    A deep network would have to run once for each of its blocks otherwise.
    """
    seen: Counter[tuple[Any, ...]] = Counter()
    made = []
    for each in plan.reshapes:
        line = (each.function, each.line, each.op, len(each.old))
        seen[each.layer, line] += 1  # one line may make several, as a matrix product that is then reshaped does
        made.append((line, seen[each.layer, line]))
    return [number for number in waiting if number != place and made[number] == made[place]]


def _place(wrong: int | None, found: Propagation, waiting: Mapping[int, Reshape], error: TraceError | None) -> int | None:
    """Return which of the waiting reshapes explains what went wrong, by the node, or else by the line that failed."""
    if wrong is not None:
        return found.resized.get(wrong) if found.resized.get(wrong) in waiting else None
    line = error.source.line if error is not None and error.source is not None else -1
    return next((number for number, reshape in waiting.items() if reshape.line == line), None)


def _rewritten(plan: Plan, place: int, sizes: tuple[Size, ...]) -> Plan:
    """Note in the plan that a reshape's code was rewritten, or which attributes took its place."""
    reshape = replace(plan.reshapes[place], rewrite=not sizes)
    return replace(plan, sizes=(*plan.sizes, *sizes), reshapes=(*plan.reshapes[:place], reshape, *plan.reshapes[place + 1 :]))


def _unsettled(graph: Graph, wrong: int | None, error: TraceError | None) -> Exception:
    if wrong is None:
        return SpeedupError(f"the small model does not run: {error}")
    return _FixedSize(wrong, f"{graph.nodes[wrong].place} needs its size: the code there fixes it")


def _attempt(adapter: Adapter, inputs: Any) -> tuple[Trace, TraceError | None]:
    """Trace the small model; where it fails, return what was recorded up to there."""
    try:
        return adapter.trace(inputs, {}), None
    except TraceError as error:
        return Trace(error.graph or Graph(), tuple), error


def _first_wrong(graph: Graph, small: Graph, found: Propagation, error: TraceError | None) -> int | None:
    """Return the first node of the small model whose kind, shape or slice is not the plan's, or at which it stopped, be it the first."""
    for number, (expected, node, wanted) in enumerate(zip(graph.nodes, small.nodes, found.shapes, strict=False)):
        if node.kind != expected.kind or tuple(tensor.shape for tensor in node.outputs) != wanted:
            return number
        if number in found.indices and not np.array_equal(node.attrs["index"], found.indices[number]):
            return number
    ran = small.nodes or (error is not None and error.graph is not None)
    if ran and len(small.nodes) < len(graph.nodes):
        return len(small.nodes)
    if error is None and len(small.nodes) != len(graph.nodes):
        counts = f"the small model ran {len(small.nodes)} operations, the masked one {len(graph.nodes)}"
        raise SpeedupError(f"{counts}: its control flow depends on a size")
    return None


def _held(plan: Plan, graph: Graph) -> set[tuple[str, str]]:
    """Return the (layer, attribute) that a plan changes by what their names and numbers say."""
    return {(size.layer, size.attribute) for size in plan.sizes if size.attribute in graph.numbers.get(size.layer, {})}


def _check_numbers(graph: Graph, small: Graph, found: Propagation, may_be_held: bool) -> None:
    """Raise where the small model's code computes with another number, as `x / self.width` or `x / sqrt(x.shape[-1])`.

    `_Differs` where an attribute that changed may have given it, else `_FixedSize`.
    """
    for number, (before, after) in enumerate(zip(graph.nodes, small.nodes, strict=True)):
        for a, b in zip(_numbers(before), _numbers(after), strict=False):
            if abs(a - b) > 1e-5 * abs(a):
                if may_be_held:
                    raise _Differs(f"{before.place} computes with a number that changed with a size")
                reason = f"{before.place} computes with {a:.4g}, which follows from the size"
                raise _FixedSize(_giver(graph, found, number, a), reason)


def _giver(graph: Graph, found: Propagation, number: int, value: float) -> int:
    """Return the node, of the same layer, whose changed size may have given a value that another node computes with; else that node."""
    for other, (node, wanted) in enumerate(zip(graph.nodes, found.shapes, strict=True)):
        if node.layer == graph.nodes[number].layer:
            changed = {
                old for t, shape in zip(node.outputs, wanted, strict=True) for old, new in zip(t.shape, shape, strict=True) if old != new
            }
            if any(np.isclose(value, old**power) for old in changed for power in (1.0, -1.0, 0.5, -0.5)):
                return other
    return number


def _numbers(node: Node) -> Iterator[float]:
    """Yield the single numbers, not made from the input, that an operation on floats computes with; what is not finite is left out."""
    if not any(tensor.floating for tensor in node.outputs):
        return  # arithmetic of sizes
    given = [float(np.asarray(t.data()).reshape(())) for t in node.inputs if t and t.role == "constant" and t.data and not t.shape]
    yield from (number for number in (*given, float(node.attrs.get("scale") or 0.0)) if np.isfinite(number))


def _compare(masked: Sequence[Array], small: Sequence[Array], allowed: float) -> float:
    """Return the largest difference relative to the largest output. Raises `SpeedupError` for other shapes, and where it is not allowed."""
    worst = 0.0
    for number, (a, b) in enumerate(zip(masked, small, strict=True)):
        if a.shape != b.shape:
            raise SpeedupError(f"output {number} of the small model has the shape {b.shape} instead of {a.shape}")
        if a.dtype.kind != "f" or not a.size:
            continue
        difference = apart(a, b)
        if not difference <= allowed:
            found = f"output {number} of the small model differs from the masked model's by {difference:.2g} of the largest"
            raise _OutputsDiffer(f"{found}; rounding explains at most {allowed:.0e}")
        worst = max(worst, difference)
    return worst


def _warn(plan: Plan, emptied: Sequence[str]) -> None:
    for axis in emptied:
        one = "block" if axis.endswith(")") else "index"
        warnings.warn(f"everything along {axis} was masked; one {one} is kept", UserWarning, stacklevel=4)
    if not plan.groups:
        reasons = "; ".join(f"{kept.count} of {kept.where}: {kept.reason}" for kept in plan.kept)
        why = reasons or "no output channel, and no input channel of a layer, is masked as a whole"
        warnings.warn(f"ModelSpeedup removed nothing. {why}", NothingRemoved, stacklevel=4)
