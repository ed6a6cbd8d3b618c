"""The format "onnx": float or quantised, one file, checked in ONNX Runtime before it gets its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from nnc.adapter import Adapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, ExportError
from nnc.export import LABEL, ExportResult, Order, Placed
from nnc.graph.ir import Array
from nnc.latency import Latency, hardware
from nnc_onnx.draft import Draft
from nnc_onnx.kernels import INTEGER, kernels, optimised_graph, run, seconds_by_turns, session, vnni
from nnc_onnx.protos import attributes
from nnc_onnx.quantize import Quantised, quantise
from nnc_onnx.running import feed
from nnc_onnx.tidy import needs_contrib, tidy

#: The float file may differ from the framework's outputs by so much of the largest one; where it computes in float16, by its precision.
CLOSE, HALF = 1e-5, 2.0**-10
#: The types of numbers in which a model may compute instead of float32.
_OTHERS = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
_REMEDY = "Convert it first: model.float() in PyTorch, the dtype policy 'float32' in Keras; example inputs likewise."
#: A scale for each channel came with 13, GELU and LayerNormalization as one node need none: ONNX Runtime has its own.
OLDEST = 13
#: A quantised file may miss the fake-quantised model by so much of an output's range, five steps of 8 bits; see `unlike`.
ROUNDING = 5 / 255
#: How often each model is timed, and the share of the float time above which a quantised file is refused.
REPEATS, ROUNDS, SLOWER = 25, 4, 1.05


class OnnxFormat:
    """Implements `nnc.export.Format`."""

    def write(self, adapter: Adapter, path: Path, order: Order) -> ExportResult:
        if order.opset is not None and order.opset < OLDEST:
            raise ConfigError(f"opset: {order.opset} is too old; {OLDEST} is the first that quantises each channel by itself.")
        if order.quantised and order.dynamic and order.grids and any(site.tensor.startswith("input") for site in order.grids):
            raise ConfigError("dynamic: the grids give ranges of inputs, and dynamic is to find them at run time; give one or the other.")
        plain = path.with_name("float.onnx")
        adapter.export(plain, order.example_inputs, order.opset)
        given = onnx.load(plain)
        raised(given, order.opset)
        source = ModelProto()
        source.CopyFrom(given)
        _tidied(given)
        _save(given, plain)
        written = Written(plain, given, feed(given, _inputs(order.example_inputs)))
        expected = tuple(to_numpy(each) for each in adapter.run(order.example_inputs))
        difference = _difference(written, expected)
        kinds = precisions(given)
        if difference > (HALF if "float16" in kinds else CLOSE) * 10:
            raise ExportError(f"the float file differs from the model by {difference:.1e} of the largest output; nothing was written.")
        if order.quantised and kinds:
            raise ConfigError(f"model: it computes in {', '.join(kinds)}; quantised files are made from float32. {_REMEDY}")
        if not order.quantised:
            plain.replace(path)
            notes = () if difference <= CLOSE else (f"the difference is above {CLOSE:.0e}: rounding adds up in deep models",)
            return ExportResult(path, "onnx", path.stat().st_size, difference, f"the {adapter.framework} model", opset(given), notes=notes)
        return _quantised(adapter, path, order, source, written, expected)


def _difference(written: Written, expected: Sequence[Array]) -> float:
    """Return the difference of a float file. Raises `ConfigError` where ONNX Runtime lacks kernels for its type of numbers."""
    try:
        return written.difference(expected)
    except ExportError as error:
        kinds = precisions(written.model)
        if not isinstance(error.__cause__, Exception) or not kinds:
            raise
        raise ConfigError(f"model: it computes in {', '.join(kinds)}, for which ONNX Runtime lacks kernels. {_REMEDY}") from error


def precisions(model: ModelProto) -> list[str]:
    """Return the types of numbers other than float32 in which a model computes; a number or two in float64 do not count."""
    graph = model.graph
    found = {tensor.data_type for tensor in graph.initializer if len(tensor.dims)}
    found |= {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}
    found |= {attributes(node).get("to") for node in graph.node if node.op_type == "Cast"} - {TensorProto.DOUBLE}
    return [name for kind, name in _OTHERS.items() if kind in found]


@dataclass(frozen=True)
class Written:
    """A file, its model and inputs for it."""

    path: Path
    model: ModelProto
    feed: Mapping[str, Array]

    def difference(self, expected: Sequence[Array], precise: bool = False) -> float:
        """Return the largest difference from `expected`, relative to its largest number."""
        return max((_relative(found, wanted) for found, wanted in self.beside(expected, precise)), default=0.0)

    def beside(self, expected: Sequence[Array], precise: bool = False) -> list[tuple[Array, Array]]:
        """Return each output that is not empty with the one expected. Raises `ExportError` where counts or shapes differ."""
        found = run(session(self.path, precise=precise), self.feed)
        if len(found) != len(expected):
            raise ExportError(f"the file gives {len(found)} outputs, what it is compared with {len(expected)}.")
        pairs = [(a, b) for a, b in zip(found, expected, strict=True) if np.size(b)]
        for one, other in pairs:
            if one.shape != other.shape:
                raise ExportError(f"the file gives an output of shape {one.shape}, what it is compared with {other.shape}.")
        return pairs


def _relative(found: Array, expected: Array) -> float:
    apart = np.abs(found.astype(np.float64) - expected)
    return float(np.nanmax(apart, initial=0) / max(float(np.nanmax(np.abs(expected), initial=0)), 1e-30))


def unlike(found: Array, simulated: Array, before: Array) -> str:
    """Say how far an output is from the fake-quantised model's, "" where rounding explains it.

    Both round the same numbers, so they part only where one falls on a tie. With few bits a tie moves much, yet the file is nearer to the
    fake-quantised model than `before` is, what the model gives with activations as they are. All distances are root mean squares in
    shares of the output's range.
    """
    if not np.issubdtype(found.dtype, np.floating):
        return ""  # an index of the largest: one tie moves it anywhere
    if (np.isnan(found) != np.isnan(simulated)).any():
        return "NaN where the other has numbers"
    held = np.isfinite(simulated)
    if not held.any():
        return ""
    wanted = simulated[held].astype(np.float64)
    reach = max(float(wanted.max() - wanted.min()), float(np.abs(wanted).max()), 1e-30)
    apart, change = (float(np.sqrt(np.mean((other[held] - wanted) ** 2))) / reach for other in (found, before))
    allowed = max(ROUNDING, change)
    return f"{apart:.1%} of its range where rounding explains {allowed:.1%}" if not apart <= allowed else ""


def _quantised(
    adapter: Adapter, path: Path, order: Order, source: ModelProto, written: Written, expected: tuple[Array, ...]
) -> ExportResult:
    weights = {layer.name: to_numpy(layer.weight) for layer in adapter.layers() if "weight" in layer.parameters}
    done = quantise(source, order.grids, weights, order.dynamic)
    _unlabelled(source)
    _save(source, path)
    small = Written(path, source, written.feed)
    placed = _placed(optimised_graph(path), done)
    wrong = [f"{one.layer} ({one.kernel})" for one in placed if not one.reason and one.kernel not in INTEGER]
    compared = expected if order.reference is None else order.reference
    difference = small.difference(compared, precise=not vnni())
    _same_as_simulated(small, order, expected)
    latency, ratio = _timed(written, small)
    if not order.force:
        if wrong:
            raise ExportError(f"ONNX Runtime computes in float what was to be integer: {', '.join(wrong)}. force=True writes the file.")
        if ratio > SLOWER:
            raise ExportError(_slow(latency, placed))
    return ExportResult(
        path,
        "onnx",
        path.stat().st_size,
        difference,
        f"the float {adapter.framework} model" if order.reference is None else "the reference given",
        opset(source),
        placed,
        written.path.stat().st_size,
        latency,
        _notes(small, compared),
    )


def _same_as_simulated(small: Written, order: Order, expected: Sequence[Array]) -> None:
    """Raise `ExportError` where the file does not give what the fake-quantised model gives; its exact kernels are asked."""
    if order.reference is None or order.force:
        return
    pairs = small.beside(order.reference, precise=True)
    before = [array for array in expected if np.size(array)]
    for number, ((found, simulated), plain) in enumerate(zip(pairs, before, strict=True)):
        if difference := unlike(found, simulated, plain):
            where = f"output {number} differs by {difference}"
            raise ExportError(f"the quantised file does not give what the model gives on these grids: {where}. force=True writes it.")


def _placed(graph: Any, done: Quantised) -> tuple[Placed, ...]:
    integer = [Placed(layer, kernel) for layer, kernel in kernels(graph, done).items()]
    return tuple(integer + [Placed(layer, "float", reason) for layer, reason in done.reasons.items()])


def _timed(before: Written, after: Written) -> tuple[Latency, float]:
    """Return the CPU seconds of both on one thread, by turns, and how many times as long the second takes.

    Medians and fastest runs that do not agree on which is faster show that others used the processor: then more runs are timed.
    """
    slow, fast = session(before.path), session(after.path)
    spent: dict[str, list[float]] = {"float": [], "file": []}
    for _ in range(ROUNDS):
        timed = seconds_by_turns({"float": lambda: run(slow, before.feed), "file": lambda: run(fast, after.feed)}, REPEATS)
        spent = {name: [*seconds, *timed[name]] for name, seconds in spent.items()}
        ratios = [of(spent["file"]) / of(spent["float"]) for of in (median, _quarter, min)]
        if len({ratio > SLOWER for ratio in ratios}) == 1:
            break
    batch = next((array.shape[0] for array in before.feed.values() if array.ndim), 1)
    conditions = f"{hardware()}, CPU time of one thread"
    return Latency(median(spent["float"]), median(spent["file"]), batch, len(spent["file"]), conditions), ratios[1]


def _quarter(seconds: Sequence[float]) -> float:
    """Return what a quarter of the runs was faster than."""
    return quantiles(seconds)[0]


def _slow(latency: Latency, placed: Sequence[Placed]) -> str:
    floats = [f"{one.layer}: {one.reason}" for one in placed if one.reason]
    why = f" In float stay {'; '.join(floats[:5])}." if floats else " Layers this small cost more to quantise than their products save."
    times = f"{1000 * latency.after:.3f} ms against {1000 * latency.before:.3f} ms in float"
    return f"the quantised file is slower: {times} ({latency.conditions}).{why} force=True writes it all the same."


def _notes(small: Written, compared: Sequence[Array]) -> tuple[str, ...]:
    if vnni():
        return ()
    exact = "The difference above is that of its exact kernels, session option session.x64quantprecision=1"
    plain = f"without it, it is {small.difference(compared):.1e}. Weights of 7 bits never overflow."
    return (f"this processor has no VNNI, on which ONNX Runtime's sums of bytes may overflow. {exact}; {plain}",)


def opset(model: ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def raised(model: ModelProto, wanted: int | None) -> None:
    """Bring a model to a newer opset, where a framework's exporter writes only older ones."""
    if wanted is None or opset(model) >= wanted:
        return
    newest = onnx.defs.onnx_opset_version()
    if wanted > newest:
        raise ConfigError(f"opset: {wanted} is outside {OLDEST} to {newest}, what onnx {onnx.__version__} writes.")
    try:
        model.CopyFrom(onnx.version_converter.convert_version(model, wanted))
    except Exception as error:  # the converter raises classes of its own, and assertions
        raise ExportError(f"opset: the model cannot be brought from {opset(model)} to {wanted}: {error}.") from error


def _inputs(example_inputs: Any) -> Any:
    """Return example inputs by position: names are the framework's, which a file may spell otherwise."""
    return list(example_inputs.values()) if isinstance(example_inputs, Mapping) else example_inputs


def _tidied(model: ModelProto) -> None:
    lists = next((node for node in model.graph.node if node.op_type == "SequenceEmpty"), None)
    if lists is not None:
        written = "the framework's exporter writes a loop that fills a list of tensors, as for nn.EmbeddingBag"
        raise ExportError(f"{written}, and ONNX Runtime crashes on such files; an Embedding and a mean over rows can be exported.")
    draft = Draft(model)
    tidy(draft)
    needs_contrib(draft.finish())
    _unlabelled(model)


def _unlabelled(model: ModelProto) -> None:
    """Take nnc's notes from the nodes: the file is done."""
    for node in model.graph.node:
        kept = [(entry.key, entry.value) for entry in node.metadata_props if entry.key != LABEL]
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)


def _save(model: ModelProto, path: Path) -> None:
    """Write a model; ONNX Runtime checks it when it opens the file."""
    path.write_bytes(model.SerializeToString())
