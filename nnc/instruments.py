"""Put algorithms on a model for training, and take them off again.

    masks, then views, then objectives, then how their variables learn

Either all of it is on the model afterwards or, after an exception, the model is as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from nnc.adapter import Adapter, Masks, TrainableAdapter
from nnc.errors import ConfigError, ModelError
from nnc.graph.ir import Array
from nnc.masks import merge
from nnc.views import Learning, Site, View

if TYPE_CHECKING:
    from nnc.algorithm import Algorithm

#: The user's own weights where an algorithm has put others in their place, by model.
_ORIGINALS: WeakKeyDictionary[Any, dict[Site, Array]] = WeakKeyDictionary()


def trainable(adapter: Adapter, purpose: str) -> TrainableAdapter:
    """Return the adapter as one that trains. Raises `ModelError` that says what cannot be done where its framework does not."""
    if not hasattr(adapter, "set_views"):
        remedy = "Do it on the PyTorch or Keras model that the file was exported from."
        raise ModelError(f"model: {purpose} needs training, and a model of {adapter.framework!r} cannot be trained. {remedy}")
    return cast(TrainableAdapter, adapter)


def attach(adapter: Adapter, algorithms: Iterable[Algorithm], teacher: Any = None, optimizer: Any = None) -> Masks:
    """Put what the algorithms propose on the model, on top of the masks that it has, and return its masks."""
    chosen = list(algorithms)
    masks = adapter.masks()
    for one in chosen:
        masks = merge(masks, one.propose())
    with restored(adapter):
        if any(one.kind == "quantize" for one in chosen):
            # On the grids of an earlier run nothing could be measured, and views of the same name would keep them.
            trainable(adapter, "quantisation").set_views({})
        for one in chosen:
            _rewrite(adapter, one.rewrites())
        adapter.set_masks(masks)
        # After the masks: a quantizer measures what the masked model computes.
        views = _together(site_views for one in chosen for site_views in one.views().items())
        objectives = [objective for one in chosen for objective in one.objectives()]
        learning = _groups(chosen)
        if views or objectives or optimizer is not None:
            ready = trainable(adapter, chosen[0].name if chosen else "an optimizer")
            ready.set_views(views)
            ready.set_objectives(objectives, teacher)
            ready.learn(learning, optimizer)
    return {layer: {name: _writeable(mask) for name, mask in given.items()} for layer, given in masks.items()}


def _writeable(mask: Array) -> Array:
    """Return a mask that its new owner may change: a proposed one may be a view that repeats a row."""
    return mask if mask.flags.writeable else mask.copy()


def detach(adapter: Adapter) -> None:
    """Take everything off the model: it is the user's own again, with the numbers that training gave it.

    Weights that an algorithm had put in the place of the user's are the user's again.
    """
    off(adapter)
    adapter.set_masks({})
    originals = _forgotten(adapter)
    if originals:
        trainable(adapter, "rewriting").write(originals)


def _rewrite(adapter: Adapter, weights: Mapping[Site, Array]) -> None:
    if weights:
        before = trainable(adapter, "rewriting").write(weights)
        _ORIGINALS[adapter.model] = {**before, **_rewritten(adapter)}


def _rewritten(adapter: Adapter) -> dict[Site, Array]:
    """Return the user's own weights. A model of an adapter that cannot train is never rewritten, and need not be hashable."""
    return dict(_ORIGINALS.get(adapter.model, {})) if hasattr(adapter, "set_views") else {}


def _forgotten(adapter: Adapter) -> dict[Site, Array]:
    """Return the user's own weights and keep them no longer."""
    return _ORIGINALS.pop(adapter.model, {}) if hasattr(adapter, "set_views") else {}


def off(adapter: Adapter) -> None:
    """Take views and objectives off; masks stay."""
    if hasattr(adapter, "set_views"):
        ready = cast(TrainableAdapter, adapter)
        ready.set_objectives(())
        ready.set_views({})


def keep_only(adapter: Adapter, algorithms: Iterable[Algorithm]) -> None:
    """Leave the views and objectives of some algorithms on the model, with their numbers, and take the others off."""
    chosen = list(algorithms)
    if not chosen:
        off(adapter)
        return
    ready = trainable(adapter, chosen[0].name)
    ready.set_objectives([objective for one in chosen for objective in one.objectives()])
    ready.set_views(_together(site_views for one in chosen for site_views in one.views().items()))


@contextmanager
def plain_views(adapter: Adapter) -> Iterator[None]:
    """See the model through its masks only while the block runs; after an exception in it the views are back."""
    views = cast(TrainableAdapter, adapter).views() if hasattr(adapter, "views") else {}
    if not views:
        yield
        return
    ready = trainable(adapter, "views")
    numbers = {key: given for key, given in ready.numbers().items() if key[1]}
    ready.set_views({})
    try:
        yield
    except BaseException:
        ready.set_views(views)
        ready.set_numbers(numbers)
        raise


@contextmanager
def restored(adapter: Adapter) -> Iterator[None]:
    """After an exception in the block the model has the masks and weights that it had, and no views or objectives."""
    before, rewritten = adapter.masks(), _rewritten(adapter)
    try:
        yield
    except BaseException:
        off(adapter)
        fresh = {site: array for site, array in _forgotten(adapter).items() if site not in rewritten}
        if fresh:
            trainable(adapter, "rewriting").write(fresh)
        if rewritten:
            _ORIGINALS[adapter.model] = rewritten
        adapter.set_masks(before)
        raise


@contextmanager
def given_back(adapter: Adapter) -> Iterator[None]:
    """After an exception in the block the model has all the numbers and masks that it had, and nothing else on it."""
    masks, tensors = adapter.masks(), {path: array.copy() for path, array in adapter.tensors().items()}
    try:
        yield
    except BaseException:
        detach(adapter)
        adapter.load_tensors(tensors)
        adapter.set_masks(masks)
        raise


def _together(views: Iterable[tuple[Site, tuple[View, ...]]]) -> dict[Site, tuple[View, ...]]:
    """Put the views of several algorithms on one site in the order in which the recipe names the algorithms."""
    found: dict[Site, tuple[View, ...]] = {}
    for site, more in views:
        found[site] = (*found.get(site, ()), *more)
    return found


def _groups(algorithms: Iterable[Algorithm]) -> dict[str, Learning]:
    groups: dict[str, Learning] = {}
    for one in algorithms:
        for group, learning in one.learning().items():
            if groups.setdefault(group, learning) != learning:
                raise ConfigError(f"{one.name}: its group {group!r} is to learn as {learning}, and already learns as {groups[group]}.")
    return groups
