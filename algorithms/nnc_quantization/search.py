"""The table of a search for observers, without keeping the model quantised: what an entry's `search: true` does, on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nnc.compress import compress
from nnc.errors import ConfigError
from nnc.recipe import entries_of
from nnc.trainer import Trainer
from nnc_quantization.quantizers import PTQQuantizer
from nnc_quantization.trials import Search, settings
from nnc_schemas.quantize import SearchRange


def search(
    model: Any,
    config_list: Any,
    trainer: Trainer,
    example_inputs: Any = None,
    *,
    observers: Sequence[str] | str = SearchRange().observers,
    calib_steps: Sequence[int] | int = SearchRange().calib_steps,
) -> Search:
    """Quantise the model by the "ptq" entries with each observer on each number of batches, and return what its metric became.

    The config_list may be written as for `nnc.compress`. The model is as it was afterwards. Raises `ConfigError` for an observer that is
    not known, and without `trainer.evaluate`.
    """
    tries = {"observers": observers, "calib_steps": calib_steps}
    config_list = entries_of(config_list)
    places = [number for number, entry in enumerate(config_list) if entry.get("algorithm") == "ptq" and not entry.get("exclude")]
    if not places:
        raise ConfigError('config_list: no entry names the algorithm "ptq", whose observers search() compares.')
    asking = [{**entry, "search": tries} if number in places else entry for number, entry in enumerate(config_list)]
    compressed = compress(model, asking, example_inputs, trainer=trainer)
    compressed.unwrap()
    quantizer = next(one for one in compressed.quantizers if isinstance(one, PTQQuantizer))
    found = quantizer.searched
    assert found is not None
    chosen = [dict(entry) for entry in config_list]
    for number, spec in zip(places, (spec for spec in quantizer.specs if not spec.exclude), strict=True):
        chosen[number] |= settings(spec.tensors, chosen[number].get("observer"), found.best.observer, found.best.calib_steps)
    return replace(found, config_list=chosen)
