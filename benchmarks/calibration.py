"""What measuring ranges costs: CPU seconds against ONNX Runtime's calibration of the same network, and memory by number of samples.

    python benchmarks/calibration.py [--frameworks torch keras] [--layers 12] [--samples 32] [--observers minmax percentile kl ...]

BERT-base with random weights, sequence 128, samples one by one, one thread. CPU seconds of nnc are those of `nnc.compress` with "ptq"
on all linear layers: tracing, forward passes, observers, grids of weights, views. Those of ONNX Runtime are its calibrator's on the
exported file, for the inputs and outputs of MatMul and Gemm, and, as `static`, those of `quantize_static`, which runs it, quantises the
weights and writes the file. Memory is the largest resident set of the process, `quantize_static` apart. Each framework's cost is set beside
that of its own file. Each line of benchmarks/results/calibration.json is one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "calibration.json"
OBSERVERS = ("minmax", "abs_max", "moving_average_abs_max", "avg", "mse", "percentile", "kl")
#: nnc's observers and ONNX Runtime's methods that are one.
PEERS = {"minmax": "MinMax", "percentile": "Percentile", "kl": "Entropy"}
FEW, LENGTH = 4, 128


def samples(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 30000, (1, LENGTH)) for _ in range(count)]


def torch_feed(ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def keras_feed(ids: np.ndarray) -> dict[str, np.ndarray]:
    ids = ids.astype("int32")
    return {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": np.ones_like(ids)}


def torch_bert(layers: int, count: int) -> tuple[Any, list[Any]]:
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    feeds = map(torch_feed, samples(count))
    batches = [{name: torch.as_tensor(array) for name, array in feed.items()} for feed in feeds]
    return BertModel(BertConfig(num_hidden_layers=layers)).eval(), batches


def keras_bert(layers: int, count: int) -> tuple[Any, list[Any]]:
    import keras
    import keras_hub
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    sizes = {"vocabulary_size": 30522, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072, "max_sequence_length": 512}
    model = keras_hub.models.BertBackbone(num_layers=layers, **sizes)
    return model, list(map(keras_feed, samples(count)))


BERTS = {"torch": torch_bert, "keras": keras_bert}
FEEDS = {"torch": torch_feed, "keras": keras_feed}


def ours(framework: str, layers: int, count: int, observers: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the cost of each observer on few samples and on all of them."""
    import nnc

    model, batches = BERTS[framework](layers, count)
    for observer in observers:
        found: dict[str, Any] = {"tool": f"nnc, {framework}", "observer": observer}
        for number in (FEW, count):
            entry = {"algorithm": "ptq", "op_types": ["Linear"], "observer": observer, "calib_steps": number}
            trainer = nnc.Trainer(batches, lambda outputs, labels: None, progress=False)
            restart_peak()
            start = process_time()
            c = nnc.compress(model, [entry], example_inputs=batches[0], trainer=trainer)
            found[f"cpu_seconds_{number}"] = round(process_time() - start, 2)
            found[f"peak_mb_{number}"] = peak()
            c.unwrap()
        found["memory_growth"] = round(found[f"peak_mb_{count}"] / found[f"peak_mb_{FEW}"], 3)
        yield found


def theirs(path: Path, observer: str, count: int) -> dict[str, Any]:
    """Return the cost of ONNX Runtime's calibrator on a file, and of `quantize_static`; a process runs one, since what it holds stays."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import create_calibrator

    class Feeds(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = map(FEEDS[path.stem], samples(count))

        def get_next(self) -> Any:
            return next(self.left, None)

    method = getattr(CalibrationMethod, PEERS[observer])
    symmetric = {"symmetric": True} if observer == "kl" else {}
    restart_peak()
    start = process_time()
    calibrator = create_calibrator(
        path, ["MatMul", "Gemm"], path.with_name("augmented.onnx"), calibrate_method=method, extra_options=symmetric
    )
    calibrator.collect_data(Feeds())
    calibrator.compute_data()
    found = {
        "tool": f"onnxruntime, {path.stem}",
        "observer": observer,
        f"cpu_seconds_{count}": round(process_time() - start, 2),
        f"peak_mb_{count}": peak(),
    }
    del calibrator
    start = process_time()
    quantize_static(
        path,
        path.with_name("static.onnx"),
        Feeds(),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
    )
    return {**found, f"static_cpu_seconds_{count}": round(process_time() - start, 2)}


def restart_peak() -> None:
    """Let the kernel forget the largest resident set so far."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the largest resident set since `restart_peak`, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def keep(row: dict[str, Any], conditions: str) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    left = [one for one in known if (one["tool"], one["observer"]) != (row["tool"], row["observer"])]
    print(json.dumps(row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    lines = ",\n ".join(json.dumps(one) for one in [*left, {**row, "conditions": conditions}])
    RESULTS.write_text(f"[\n {lines}\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="*", default=["torch", "keras"], choices=list(BERTS))
    parser.add_argument("--observers", nargs="*", default=list(OBSERVERS), choices=OBSERVERS)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--one", nargs=2, help="for the program itself: see _one")
    given = parser.parse_args()
    if given.one:
        _one(given, *given.one)
        return
    for framework in given.frameworks:
        _process(given, framework, "all")
        if given.peers:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"{framework}.onnx")
                _process(given, framework, str(path))
                for observer in given.peers:
                    _process(given, str(path), observer)


def _one(given: argparse.Namespace, name: str, what: str) -> None:
    """Do what one process does: measure a framework ("all"), write its file, or measure the calibrator of a file with an observer."""
    if name in BERTS and what != "all":
        written(name, Path(what), given.layers)
        return
    rows = ours(name, given.layers, given.samples, given.observers) if name in BERTS else [theirs(Path(name), what, given.samples)]
    for row in rows:
        keep(row, _conditions(given))


def written(framework: str, path: Path, layers: int) -> None:
    import nnc

    model, batches = BERTS[framework](layers, 1)
    nnc.export(model, path, batches[0])


def _process(given: argparse.Namespace, *one: str) -> None:
    sizes = ["--layers", str(given.layers), "--samples", str(given.samples), "--observers", *given.observers]
    subprocess.run([sys.executable, __file__, *sizes, "--one", *one], check=True)


def _conditions(given: argparse.Namespace) -> str:
    from nnc.latency import hardware

    return f"BERT of {given.layers} layers, width 768, {given.samples} samples of {LENGTH} tokens one by one, 1 thread, {hardware()}"


if __name__ == "__main__":
    main()
