"""Keras' recurrent layers: the cell that holds the parameters stands, for a reader of the model, under the name of its layer.

LSTM "memory"                     layer "memory", parameters weight, recurrent_weight, bias of its cell
Bidirectional(LSTM) "both"        layers "both.forward_layer" and "both.backward_layer"
a cell that user code calls       a layer of its own
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from nnc.graph.ir import Array

#: Keras' cells: what they are in the graph, and their gates in the order in which Keras stores them.
CELLS: dict[type, tuple[str, tuple[str, ...]]] = {
    keras.layers.LSTMCell: ("lstm", ("input", "forget", "candidate", "output")),
    keras.layers.GRUCell: ("gru", ("update", "reset", "candidate")),
    keras.layers.SimpleRNNCell: ("rnn", ("candidate",)),
}


def is_cell(layer: Any) -> bool:
    return layer.__class__ in CELLS


def cell_of(layer: Any) -> Any | None:
    """Return the cell that a recurrent layer runs, None for any other layer and for cells of a user's own."""
    return layer.cell if isinstance(layer, keras.layers.RNN) and is_cell(layer.cell) else None


def holder(layer: Any) -> Any:
    """Return the layer that stores what a reader of the model finds in `layer`."""
    cell = cell_of(layer)
    return layer if cell is None else cell


def holder_name(layers: Mapping[str, Any], name: str) -> str:
    """Return the name of the layer that stores the parameters of the layer `name`."""
    return name if cell_of(layers[name]) is None else f"{name}.cell"


def runs_whole(layer: Any) -> bool:
    """Tell whether a call of a layer can be read as one: Keras' own, without a state that outlives the call."""
    return cell_of(layer) is not None and layer.__class__.__module__.startswith("keras.src.") and not layer.stateful


def units(weights: Mapping[str, Array]) -> int:
    """Return the number of units of a cell with these weights."""
    return int(weights["recurrent_kernel"].shape[0])


def cell_sizes(cell: Any, weights: Mapping[str, Array]) -> dict[str, Any]:
    """Return the attributes of a cell that its weights fix."""
    size = units(weights)
    state = [size, size] if isinstance(cell, keras.layers.LSTMCell) else size
    return {"units": size, "state_size": state, "output_size": size}


def layer_sizes(weights: Mapping[str, Array], states: int) -> dict[str, Any]:
    """Return the attributes of a recurrent layer that the weights of its cell fix; `units` is what its config says."""
    return {"units": units(weights), "state_size": [units(weights)] * states}


def edited(config: dict[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a recurrent layer with the sizes of its cell, wherever it has them."""
    if "cell" in config:
        return {**config, "cell": _resized(config["cell"], sizes)}
    return {**config, "units": sizes["units"]}


def _resized(inner: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {**inner, "config": {**inner["config"], "units": sizes["units"]}, "build_config": None}
