"""Quantisation that measures first: what every quantizer does, and post-training quantisation, which does no more.

`calib_steps` batches are measured; then `ptq` has its grids, and the quantizers of qat.py train on theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import Any, cast

import numpy as np

from nnc.adapter import Layer
from nnc.algorithm import Quantizer
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.grid import Grids
from nnc.instruments import plain_views, trainable
from nnc.masks import unmasked
from nnc.ranges import Ranges, take, write_ranges
from nnc.select import resolve
from nnc.views import Learning, Site
from nnc_quantization.calibration import Through, measure
from nnc_quantization.checks import check_finite, check_observers, check_weight, int4_names
from nnc_quantization.improve import Improvement
from nnc_quantization.observers import OBSERVERS, Observer
from nnc_quantization.plain import plain_view
from nnc_quantization.structure import Structure, running, structure_of
from nnc_quantization.trials import Search, asked, ranked, settings
from nnc_quantization.views import FixedScale, Quantised, Range, group_at
from nnc_schemas.quantize import PTQSpec, QuantSpec, SearchRange

_VIEW = Quantised.name


class CalibratedQuantizer(Quantizer):
    """Chooses sites, measures ranges, builds views; subclasses say which views.

    `ranges` are the measured ranges of activations, None before `calibrate`, which `views` calls by itself. Data are the trainer's, or
    else the example inputs, one batch.
    """

    spec = QuantSpec
    treated = "layers with one weight, of two axes or more"
    observer = "moving_average_abs_max"
    #: The fewest bits of a weight, and whether inputs of one may share scales in groups.
    fewest = 2
    blocks = True

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        layers = self.adapter.layers()
        self._governed = resolve(self.specs, layers, type(self))
        self.layers: dict[str, Layer] = {layer.name: layer for layer in layers if layer.name in self._governed}
        self.ranges: Ranges | None = None
        self._made: dict[Site, Quantised] | None = None
        self._int4 = {name for spec in self.specs for name in int4_names(spec, layers, type(self)) if self._governing(name) is spec}
        check_finite(layers)
        for layer in self.layers.values():
            self._check(layer)
        self._structure = Structure() if example_inputs is None else self._structure_on(example_inputs)

    def _check(self, layer: Layer) -> None:
        entry = self._entry(layer.name)
        check_observers(entry, self.name)
        for tensor in set(entry.tensors) - {"bias"}:
            self._bits(layer.name, tensor)
        if "weight" in entry.tensors:
            check_weight(entry, layer, self.name, self.blocks)

    def _governing(self, layer: str) -> QuantSpec | None:
        return self._entry(layer) if layer in self._governed else None

    @staticmethod
    def treats(layer: Layer) -> bool:
        several = {"recurrent_weight", "key_weight"} & layer.parameters.keys()
        return len(layer.parameters.get("weight", ())) > 1 and not several

    @abstractmethod
    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        """Return the view of a layer's weight."""

    @abstractmethod
    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        """Return the view of an activation whose range `limits` was measured; sites of one `shared` name see the same tensor."""

    def calibrate(self, batches: Any = None) -> Ranges:
        """Measure the ranges of activations on batches of inputs, by default the trainer's first `calib_steps` ones.

        Grids of an earlier run leave the model; `compress` puts it on new ones. Raises `ConfigError` for data that is missing, empty or
        not finite.
        """
        observers = self._observers()
        if observers:
            adapter = trainable(self.adapter, self.name)
            given, through = (self._batches(), self._through) if batches is None else (batches, None)
            with plain_views(adapter):
                measured = measure(adapter, given, dict(observers.values()), through)
            self.ranges = {site: measured[first] for site, (first, _) in observers.items()}
        else:
            self.ranges = {}
        self._made = None
        return self.ranges

    def calibration(self) -> Ranges:
        if self.ranges is None:
            raise ConfigError(f"{self.name}: nothing has been measured yet; call calibrate() first.")
        return self.ranges

    def take_calibration(self, ranges: Ranges) -> None:
        self.ranges, self._made = {site: ranges[site] for site in self.measured()}, None

    def save_calibration(self, path: str | PathLike[str]) -> None:
        """Write the measured ranges to a file."""
        write_ranges(self.calibration(), path)

    def load_calibration(self, path: str | PathLike[str]) -> None:
        """Take ranges that were measured before. Raises `ConfigError` where they are of other layers."""
        take(path, [self])

    def views(self) -> Mapping[Site, tuple[Quantised, ...]]:
        return {site: (view,) for site, view in self._views().items()}

    def _views(self) -> dict[Site, Quantised]:
        if self._made is None:
            self._made = {**self._weight_views(), **self._activation_views()}
        return self._made

    def learning(self) -> Mapping[str, Learning]:
        entries = [spec for spec in self.specs if not spec.exclude]
        rates = sorted({(kind, rate) for spec in entries for kind, rate in (("input", spec.lr_input), ("weight", spec.lr_weight))})
        return {group_at(kind, rate): Learning(rate) for kind, rate in rates}

    def grids(self) -> Grids:
        """Return the grids of weights and activations as they are seen now. Raises `ConfigError` before anything was measured."""
        if self._made is None:
            raise ConfigError(f"{self.name}: export before calibration: the model has no grids yet; call nnc.compress or compress() first.")
        adapter = trainable(self.adapter, self.name)
        if not adapter.views().keys() >= self._made.keys():
            raise ConfigError(f"{self.name}: the model is on no grids any more: unwrap() took them off; call nnc.compress again.")
        numbers = adapter.numbers()
        return {site: view.grid(self._weight(site), numbers.get((str(site), _VIEW), {})) for site, view in self._made.items()}

    def moved(self, model: Any, example_inputs: Any, grids: Grids) -> Quantizer:
        """Return this algorithm for a smaller model: ranges of activations and learned scales stay, ranges of weights are found again."""
        new = type(self)(model, self.specs, example_inputs, trainer=self.trainer, seed=self.seed)
        new.ranges = {site: self._views()[site].limits(grid) for site, grid in grids.items() if not site.is_parameter}
        return new

    def _weight(self, site: Site) -> Array | None:
        """Return a weight as its mask leaves it, `(out, in, *kernel)`; None for an activation."""
        if not site.is_parameter:
            return None
        array = to_numpy(self.layers[site.layer].stored(site.tensor))
        mask = self.adapter.masks().get(site.layer, {}).get(site.tensor)
        return array if mask is None else np.where(mask, array, np.float32(0))

    def _entry(self, layer: str) -> QuantSpec:
        found: QuantSpec = self.specs[self._governed[layer]]
        return found

    def _weight_views(self) -> dict[Site, Quantised]:
        chosen = {name: layer for name, layer in self.layers.items() if "weight" in self._entry(name).tensors}
        return {
            Site(name, "weight"): self.weight_view(layer, self._bits(name, "weight"), self._entry(name)) for name, layer in chosen.items()
        }

    def _activation_views(self) -> dict[Site, Quantised]:
        if self.ranges is None:
            self.calibrate()
        assert self.ranges is not None
        sites = [site for site in self.measured() if site in self.ranges]
        shared = self._structure.shared
        found = {}
        for site in sites:
            entry, bits = self._entry(self._owner(site)), self._bits(self._owner(site), _kind(site))
            name = f"{shared[site]}, {entry.place}, {bits} bits" if site in shared else ""
            found[site] = self.activation_view(Site(site.layer, _kind(site)), bits, entry, self.ranges[site], name)
        return found

    def _bits(self, layer: str, tensor: str) -> int:
        bits, place = self._entry(layer).bits(tensor, layer in self._int4), f"{self._entry(layer).place}.quant_bits"
        if bits == 1 and self.fewest == 1 and tensor != "weight":
            raise ConfigError(f"{place}: one bit is for weights; the {tensor} has 2 to 8, as in {{'weight': 1, {tensor!r}: 8}}.")
        if bits < self.fewest:
            raise ConfigError(f"{place}: {bits} bits are outside {self.fewest} to 8 for {self.name!r}.")
        return bits

    def measured(self) -> list[Site]:
        """Return the sites of activations; what an embedding is given are indices, which stay."""
        found: list[Site] = []
        for name in self.layers:
            wanted = self._entry(name).tensors
            found += [Site(name, tensor) for tensor in self._structure.inputs(name, self.layers[name]) if "input" in wanted]
            found += [Site(name, "output")] if "output" in wanted else []
        return list(dict.fromkeys([*found, *self._joints()]))

    def _joints(self) -> Mapping[Site, str]:
        """Return the outputs beside the entries' own that need a grid, with the layer whose entry says which; see `joints`."""
        return self._structure.joints

    def _structure_on(self, example_inputs: Any) -> Structure:
        """Leave alone what does not run on the example inputs, and return the structure of the rest."""
        with unmasked(self.adapter):
            graph = self.adapter.structure(example_inputs)
        self.layers = {name: self.layers[name] for name in running(graph, self.layers, self.name)}
        both = [name for name in self.layers if {"weight", "input"} <= set(self._entry(name).tensors)]
        return structure_of(graph, self.layers, both)

    def _owner(self, site: Site) -> str:
        """Return the layer whose entry governs a site."""
        return site.layer if site.layer in self.layers else self._joints()[site]

    def _observers(self) -> dict[Site, tuple[Site, Observer]]:
        """Return who measures each activation: the observer, and the site that it stands at; sites of one tensor have one."""
        sites = self.measured()
        shared = self._structure.shared
        known: dict[Any, tuple[Site, Observer]] = {}
        found = {}
        for site in sites:
            observer = self._observer(self._owner(site), _kind(site))
            found[site] = known.setdefault((shared.get(site, site), type(observer), observer.bits), (site, observer))
        return found

    def _observer(self, layer: str, tensor: str) -> Observer:
        return OBSERVERS[self._entry(layer).observes(tensor) or self.observer](self._bits(layer, tensor))

    def _batches(self) -> Iterator[Any]:
        if self.trainer is None:
            if self.example_inputs is None:
                raise ConfigError(f"{self.name}: ranges are measured on data; pass trainer=nnc.Trainer(data=...), or example_inputs=.")
            yield self.example_inputs
            return
        steps = max(self._entry(name).calib_steps for name in self.layers)
        yield from map(self.trainer.given, islice(self.trainer.batches(), steps))

    @property
    def _through(self) -> Through:
        return None if self.trainer is None else self.trainer.through


class PTQQuantizer(CalibratedQuantizer):
    """Weights and activations on fixed grids, found on a few batches; nothing is trained.

    Krishnamoorthi, Quantizing deep convolutional networks, 2018, arXiv:1806.08342, section 3.
    """

    name = "ptq"
    spec = PTQSpec
    observer = "minmax"

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self._scales: dict[str, Array] = {}
        self._corrects = True
        self._tries = asked(self.specs, self.trainer)
        #: What the search found that an entry asked for; None before it ran.
        self.searched: Search | None = None

    def calibrate(self, batches: Any = None) -> Ranges:
        if batches is None and self._tries is not None and self.searched is None:
            self.searched = self._search(self._tries)
        return super().calibrate(batches)

    def _search(self, tries: SearchRange) -> Search:
        """Quantise the model, which is seen through its masks only, in each way; from now on the entries say the best."""
        adapter, trainer = trainable(self.adapter, self.name), self.trainer
        assert trainer is not None

        def metric(observer: str, steps: int) -> float:
            self._observe_by(observer, steps)
            super(PTQQuantizer, self).calibrate()
            adapter.set_views(self.views())
            try:
                return cast(float, trainer.evaluate(self.model))
            finally:
                adapter.set_views({})

        before = cast(float, trainer.evaluate(self.model))
        trials = ranked(tries, metric, trainer.progress)
        self._observe_by(trials[0].observer, trials[0].calib_steps)
        self.specs = tuple(spec.model_copy(update={"search": None}) if spec.search else spec for spec in self.specs)
        return Search(before, trials, [spec.model_dump(exclude_none=True, exclude_unset=True) for spec in self.specs])

    def _observe_by(self, observer: str, steps: int) -> None:
        self.specs = tuple(
            spec if spec.exclude or spec.search is None else spec.model_copy(update=settings(spec.tensors, spec.observer, observer, steps))
            for spec in self.specs
        )

    def rewrites(self) -> Mapping[Site, Array]:
        entries = {name: entry for name in self.layers if isinstance(entry := self._entry(name), PTQSpec) and entry.improves}
        if not entries:
            return {}
        with unmasked(self.adapter):
            graph = self.adapter.structure(self._example())
        better = Improvement(trainable(self.adapter, self.name), self.layers, entries, graph, self._through)
        better.run(self._batches(), {name: self._bits(name, "weight") for name in entries}, self._corrects)
        self._scales, self._made = better.scales, None
        return better.weights

    def _example(self) -> Any:
        if self.example_inputs is not None:
            return self.example_inputs
        if self._through is not None:
            raise ConfigError(f"{self.name}: what the entry asks for is found by running the model; pass example_inputs=.")
        return next(self._batches())

    def moved(self, model: Any, example_inputs: Any, grids: Grids) -> Quantizer:
        new = super().moved(model, example_inputs, grids)
        assert isinstance(new, PTQQuantizer)
        new._corrects = False  # the small model's biases are corrected already
        return new

    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        if layer.name in self._scales:
            return FixedScale(bits, self._scales[layer.name])
        return plain_view(to_numpy(layer.weight), bits, entry)

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        return Range(bits, *limits, entry.scheme(site.tensor).endswith("symmetric") and limits[0] < 0, follows=False, shared=shared)


def _kind(site: Site) -> str:
    return site.tensor.partition(":")[0]
