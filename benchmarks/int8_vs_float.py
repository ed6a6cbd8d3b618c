"""int8 against float in ONNX Runtime, one thread, CPU time, all files of one network by turns in one run.

    python benchmarks/int8_vs_float.py [residual residual_keras bert_torch bert_keras] [--layers 12] [--rounds 15]

Weights are random: speed and size do not depend on them. The peer is ONNX Runtime's own `quantize_static`, U8S8, each channel by
itself, given the same float file; for BERT it quantises MatMul and Gemm, as nnc does. Results go to benchmarks/results/int8.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import nnc
from nnc.arrays import to_numpy
from nnc.latency import hardware

RESULTS = Path(__file__).parent / "results" / "int8.json"
TARGETS = {"residual": 3.0, "residual_keras": 3.0, "bert_torch": 2.8, "bert_keras": 2.6}
PRODUCTS = [{"algorithm": "ptq", "op_types": ["Linear", "Conv2d"]}]
TABLES = {"algorithm": "ptq", "op_types": ["Embedding"], "quant_types": ["weight"], "quant_scheme": {"weight": "per_tensor_symmetric"}}
TRANSFORMER = [{"algorithm": "ptq", "op_types": ["Linear"]}, TABLES]


def residual(layers: int) -> tuple[Any, Any]:
    """Four residual blocks of 64 channels on 64 x 64, in torch."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
            self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 3, padding=1)
            self.blocks = nn.ModuleList(Block() for _ in range(4))
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(x))
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(dim=(2, 3)))

    torch.manual_seed(0)
    return Net().eval(), torch.rand(1, 3, 64, 64)


def residual_keras(layers: int) -> tuple[Any, Any]:
    """The same in Keras."""
    import keras
    from keras.layers import Add, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D, ReLU

    keras.utils.set_random_seed(0)
    given = keras.Input((64, 64, 3))
    x = Conv2D(64, 3, padding="same", activation="relu")(given)
    for _ in range(4):
        y = ReLU()(BatchNormalization()(Conv2D(64, 3, padding="same", use_bias=False)(x)))
        y = BatchNormalization()(Conv2D(64, 3, padding="same", use_bias=False)(y))
        x = ReLU()(Add()([y, x]))
    model = keras.Model(given, Dense(10)(GlobalAveragePooling2D()(x)))
    return model, np.random.default_rng(0).random((1, 64, 64, 3)).astype("f4")


def bert_torch(layers: int) -> tuple[Any, Any]:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=layers)).eval()
    ids = torch.randint(0, 30000, (1, 128))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def bert_keras(layers: int) -> tuple[Any, Any]:
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    sizes = {"vocabulary_size": 30522, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
    model = keras_hub.models.BertBackbone(num_layers=layers, max_sequence_length=512, **sizes)
    draw = np.random.default_rng(0)
    for layer in model.transformer_layers:
        # BERT was trained with the exact GELU; keras_hub's own is the approximation.
        layer.activation = layer._feedforward_intermediate_dense.activation = keras.activations.gelu
    for variable in model.weights:
        if variable.name == "bias":  # zeros would be left out of the file
            variable.assign(draw.normal(0, 0.02, variable.shape))
    ids = np.random.default_rng(0).integers(0, 30000, (1, 128)).astype("int32")
    return model, {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": np.ones_like(ids)}


BUILDERS = {"residual": residual, "residual_keras": residual_keras, "bert_torch": bert_torch, "bert_keras": bert_keras}


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    """What `quantize_static` reads its calibration data from."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self.left: Iterator[dict[str, Any]] = iter([feed])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


def peer(source: Path, target: Path, feed: dict[str, Any], transformer: bool) -> None:
    prepared = source.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    kinds = ["MatMul", "Gemm"] if transformer else None
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(prepared, target, Feeds(feed), quant_format=QuantFormat.QDQ, op_types_to_quantize=kinds, **types)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def by_turns(paths: dict[str, Path], feed: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    sessions = {name: session(path) for name, path in paths.items()}
    spent: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 2):
        for name, ready in sessions.items():
            start = process_time()
            ready.run(None, feed)
            if number > 1:
                spent[name].append(process_time() - start)
    return spent


def measure(name: str, layers: int, rounds: int, folder: Path) -> dict[str, Any]:
    model, inputs = BUILDERS[name](layers)
    paths = {kind: folder / f"{name}_{kind}.onnx" for kind in ("float", "int8", "static")}
    nnc.export(model, paths["float"], inputs)
    c = nnc.compress(model, PRODUCTS if "residual" in name else TRANSFORMER, example_inputs=inputs)
    written = c.export(paths["int8"], force=True)
    c.unwrap()
    print(written, flush=True)
    arrays = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    names = [given.name for given in onnx.load(paths["float"]).graph.input]
    feed = dict(zip(names, map(to_numpy, arrays), strict=True))
    peer(paths["float"], paths["static"], feed, transformer="bert" in name)
    spent = by_turns(paths, feed, rounds)
    milliseconds = {kind: 1000 * median(seconds) for kind, seconds in spent.items()}
    sizes = {kind: path.stat().st_size for kind, path in paths.items()}
    length = "" if "residual" in name else f", sequence 128, {layers} layers"
    return {
        "milliseconds": {kind: round(value, 3) for kind, value in milliseconds.items()},
        "nnc_speed": round(milliseconds["float"] / milliseconds["int8"], 3),
        "static_speed": round(milliseconds["float"] / milliseconds["static"], 3),
        "nnc_size": round(sizes["int8"] / sizes["float"], 4),
        "static_size": round(sizes["static"] / sizes["float"], 4),
        "target_with_vnni": TARGETS[name],
        "kernels": {one.layer: one.kernel for one in written.placed},
        "conditions": f"batch 1{length}, median of {rounds} rounds by turns, CPU time, 1 thread, {where()}",
    }


def where() -> str:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return f"{hardware()}, {'with' if 'vnni' in flags else 'without'} VNNI, onnxruntime {onnxruntime.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(TARGETS))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            known[name] = measure(name, given.layers, given.rounds, Path(folder))
        print(json.dumps({key: value for key, value in known[name].items() if key != "kernels"}, indent=1), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
