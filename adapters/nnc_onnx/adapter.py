"""The ONNX adapter: implements `nnc.adapter.Adapter` in NumPy, with ONNX Runtime to run a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from nnc.adapter import Masks, Trace
from nnc.errors import SpeedupError, TraceError
from nnc.export import LABEL
from nnc.graph.ir import Array, Graph
from nnc.graph.plan import Plan, Reshape, Size
from nnc_onnx import masks, storage, surgery
from nnc_onnx.layers import Finder, OnnxLayer
from nnc_onnx.protos import OURS, check, copied, read
from nnc_onnx.read import Reader
from nnc_onnx.readings import READINGS
from nnc_onnx.running import everything, feed, outputs, session


class OnnxAdapter:
    """One ONNX model: the path of a file, which is read into memory and never written, or a `ModelProto`.

    Raises `ModelError` for a file that is missing or truncated, and for a model that is too old.
    """

    framework = "onnx"

    def __init__(self, model: str | Path | ModelProto) -> None:
        self.model: ModelProto = read(model) if isinstance(model, (str, Path)) else model
        self._file = str(model) if isinstance(model, (str, Path)) else "model"
        check(self.model)
        self._session: tuple[Any, Any] | None = None

    def layers(self) -> list[OnnxLayer]:
        return Finder(self.model).layers

    def masks(self) -> Masks:
        return masks.masks_of(self.layers())

    def set_masks(self, new: Masks) -> None:
        masks.set_masks(self.model, new)

    def trace(self, example_inputs: Any, masks: Masks) -> Trace:
        given = feed(self.model, example_inputs)
        work = _masked(self.model, masks)
        final = [out.name for out in work.graph.output]
        results = everything(work, given)
        del work.graph.output[len(final) :]
        missing = [name for name in final if not isinstance(results[name], np.ndarray)]
        if missing:
            raise TraceError(f"the output {missing[0]!r} is a sequence; nnc compares arrays.")
        graph = Reader(work, results, READINGS, self._file).read(given)
        outputs = tuple(results[name] for name in final)
        return Trace(graph, lambda: outputs)

    def structure(self, example_inputs: Any) -> Graph:
        # A file's shapes are known only when it has run.
        return self.trace(example_inputs, {}).graph

    def run(self, example_inputs: Any) -> tuple[Array, ...]:
        state = _fingerprint(self.model)
        if self._session is None or self._session[0] != state:
            self._session = state, session(self.model)
        return tuple(outputs(self._session[1], feed(self.model, example_inputs)))

    def shrink(self, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> ModelProto:
        small = surgery.shrink(self.model, plan, masks, folds)
        storage.remember(small, (*self.plans(), plan))
        return small

    def rewrite(self, reshape: Reshape) -> tuple[Size, ...]:
        """`shrink` has written all sizes that the file fixes already, so what still differs cannot be changed."""
        changed = f"{list(reshape.old)}, which must become {list(reshape.new)}"
        raise SpeedupError(f"{reshape.op} {reshape.function!r} has the sizes {changed}: they are computed in a way that nnc cannot follow.")

    def export(self, path: Path, example_inputs: Any, opset: int | None) -> None:
        work = copied(self.model)
        for layer in Finder(work).layers:
            for number in layer.nodes:
                work.graph.node[number].metadata_props.add(key=LABEL, value=layer.name)
        path.write_bytes(work.SerializeToString())

    def plans(self) -> tuple[Plan, ...]:
        return storage.plans(self.model)

    def remember(self, plans: tuple[Plan, ...]) -> None:
        storage.remember(self.model, tuple(plans))

    def notes(self) -> tuple[str, ...]:
        return ()

    def tensors(self) -> dict[str, Array]:
        return storage.tensors(self.model)

    def load_tensors(self, tensors: Mapping[str, Array]) -> None:
        storage.load_tensors(self.model, tensors)
        self._session = None

    def blueprint(self) -> dict[str, Any] | None:
        return storage.blueprint(self.model)

    @staticmethod
    def rebuild(blueprint: Mapping[str, Any]) -> ModelProto:
        """Return the model whose graph `blueprint` holds, with numbers of no meaning."""
        return storage.rebuild(blueprint)


def _masked(model: ModelProto, new: Masks) -> ModelProto:
    """Return a copy of a model that is seen through `new` and no other masks."""
    result = copied(model)
    masks.set_masks(result, new)
    return result


def _fingerprint(model: ModelProto) -> tuple[Any, ...]:
    """Return what differs when masks do: a session of ONNX Runtime is a copy, and cannot see them change."""
    return len(model.graph.node), *(hash(t.raw_data) for t in model.graph.initializer if t.name.startswith(OURS))
