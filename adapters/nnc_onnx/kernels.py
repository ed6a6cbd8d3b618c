"""Which kernels ONNX Runtime takes for a file: the graph that it has optimised is saved and read.

A layer is found there by the name of its int8 weight. What reads that directly is the layer's kernel; where a DequantizeLinear still
reads it, the product behind is done in float after all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import onnx
import onnxruntime

from nnc.errors import ExportError
from nnc.graph.ir import Array
from nnc_onnx.quantize import Quantised

#: Kernels that multiply integers, or read weights of few bits; not the float ones that read what was dequantised before.
INTEGER = {
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
    "Gather",
    "GatherBlockQuantized",
}


def session(path: Path, threads: int = 1, precise: bool = False, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    """Open a file. `precise` asks for integer kernels that cannot overflow on processors without VNNI, where they are slower."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot load what was written: {error}") from error


def optimised_graph(path: Path) -> Any:
    """Return the graph as ONNX Runtime runs it on this machine."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder, "optimised.onnx")
        session(path, optimised=target)
        return onnx.load(target).graph


def kernels(graph: Any, done: Quantised) -> dict[str, str]:
    """Return the kernel of each quantised layer; "" for one that is not found under its weight's name."""
    readers: dict[str, str] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, node.op_type)
    return {layer: readers.get(name, "") for layer, name in done.weights.items()}


def seconds_by_turns(calls: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Return the CPU seconds of every call in each round, all of them by turns."""
    for _ in range(warm_up):
        for call in calls.values():
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            spent[name].append(_seconds(call))
    return spent


def _seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call; where the clock has not moved meanwhile, those of as many calls as it takes, divided."""
    start, spent, times = process_time(), 0.0, 0
    while spent <= 0:
        call()
        spent, times = process_time() - start, times + 1
    return spent / times


def vnni() -> bool:
    """Whether this processor adds products of bytes without overflow: AVX-512 VNNI, AVX-VNNI, or no x86 at all."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "vnni" in flags or "avx" not in flags


def run(ready: onnxruntime.InferenceSession, feed: Mapping[str, Array]) -> tuple[Array, ...]:
    return tuple(ready.run(None, dict(feed)))
