"""Plug-ins are found, ordered, and named when they are broken."""

import sys
from types import ModuleType

import pytest

from nnc import registry
from nnc.errors import ConfigError, MissingFramework, ModelError, NncError
from nnc.hookspecs import hookimpl
from nnc_pruning import L1NormPruner
from tests import fakes


@pytest.fixture(name="plugin")
def give_plugin(monkeypatch):
    """Return `plugin(name, **hooks)`, which makes a module of that name."""

    def plugin(name, **hooks):
        module = ModuleType(name)
        for hook, function in hooks.items():
            setattr(module, hook, hookimpl(function))
        monkeypatch.setitem(sys.modules, name, module)
        return name

    return plugin


def framework(name, extra, fits=True, load=lambda: fakes.FakeAdapter):
    return lambda register: register(name, recognises=lambda model: fits, load=load, extra=extra)


def test_torch_is_asked_after_every_other_framework(install, plugin):
    install(
        torch=plugin("fake_torch", nnc_register_adapters=framework("torch", "torch")),
        keras=plugin("fake_keras", nnc_register_adapters=framework("tensorflow", "tensorflow")),
    )

    assert [found.name for found in registry.registry().frameworks] == ["tensorflow", "torch"]


@pytest.mark.usefixtures("fake_framework")
def test_a_model_gets_the_adapter_of_the_framework_that_recognises_it():
    assert isinstance(registry.adapter_for(fakes.lenet()), fakes.FakeAdapter)


@pytest.mark.usefixtures("fake_framework")
def test_a_model_of_no_framework_is_named_with_those_that_are_known():
    with pytest.raises(ModelError, match=r"the model is a builtins.dict, which is no model of a framework that nnc knows \(fake\)"):
        registry.adapter_for({})


@pytest.mark.usefixtures("fake_framework")
def test_a_class_in_the_place_of_a_model_is_named():
    with pytest.raises(ModelError, match="the model is the class FakeModel itself; pass an instance"):
        registry.adapter_for(fakes.FakeModel)


@pytest.mark.usefixtures("fake_framework")
@pytest.mark.parametrize(("module", "extra"), [("torch.nn.modules.linear", "torch"), ("keras.src.layers.core.dense", "tensorflow")])
def test_a_model_of_a_known_framework_without_plugin_names_the_extra(module, extra):
    base = type("Linear", (), {"__module__": module})
    model = type("Net", (base,), {"__module__": "my.net"})()

    with pytest.raises(MissingFramework, match=rf"the model is a my.net.Net.*pip install 'nnc-toolkit\[{extra}\]'"):
        registry.adapter_for(model)


def test_an_adapter_that_cannot_be_imported_names_the_extra(install, plugin):
    def load():
        raise ModuleNotFoundError("No module named 'array_api_compat'")

    install(torch=plugin("fake_torch", nnc_register_adapters=framework("torch", "torch", load=load)))

    with pytest.raises(MissingFramework, match=r"array_api_compat.*pip install 'nnc-toolkit\[torch\]'"):
        registry.adapter_for(object())


@pytest.mark.usefixtures("fake_framework")
def test_an_algorithm_is_found_by_name_or_the_nearest_is_named():
    assert registry.algorithm("l1_norm") is L1NormPruner
    with pytest.raises(ConfigError, match="algorithm: 'l1norm' is no algorithm; nearest: 'l1_norm'"):
        registry.algorithm("l1norm")


def test_a_plugin_that_cannot_be_imported_is_named(install):
    install(acme="acme_nowhere")

    with pytest.raises(NncError, match="plug-in 'acme' cannot be imported: ModuleNotFoundError: No module named 'acme_nowhere'"):
        registry.registry()


def test_a_plugin_that_fails_in_a_hook_is_named(install, plugin):
    def hook(register):
        register(object)

    install(acme=plugin("acme", nnc_register_algorithms=hook))

    with pytest.raises(NncError, match=r"plug-in 'acme' fails in nnc_register_algorithms: TypeError: .*has no `name`"):
        registry.registry()


def test_a_hook_that_nnc_does_not_have_is_named(install, plugin):
    install(acme=plugin("acme", nnc_register_everything=lambda register: None))

    with pytest.raises(NncError, match=r"plug-in 'acme' cannot be registered: .*nnc_register_everything"):
        registry.registry()


def test_two_algorithms_of_one_name_are_both_named(install, plugin):
    install(pruning="nnc_pruning", acme=plugin("acme", nnc_register_algorithms=lambda register: register(L1NormPruner)))

    with pytest.raises(NncError, match="algorithm 'l1_norm' is registered twice: by plug-in 'pruning' and by plug-in 'acme'"):
        registry.registry()


def test_a_plugin_given_twice_is_named(monkeypatch, install):
    install(pruning="nnc_pruning")
    entries = registry.entry_points(group="nnc")
    monkeypatch.setattr(registry, "entry_points", lambda group: entries * 2)

    with pytest.raises(NncError, match="plug-in 'pruning' is given twice: by nnc_pruning and by nnc_pruning"):
        registry.registry()
