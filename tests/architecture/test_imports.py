"""What may be loaded, and when: checked in fresh processes, for a process that ran other tests has everything loaded."""

import subprocess
import sys

import pytest

PRUNE = """
import numpy as np, nnc, sys
from nnc_pruning import L1NormPruner
pruner = L1NormPruner(model, [{"sparsity": 0.5, "op_names": ["first"]}])
masked, masks = pruner.compress()
pruner.unwrap_model()
nnc.ModelSpeedup(model, example, masks).speedup_model()
"""
TORCH = """
import torch
from collections import OrderedDict
linear = torch.nn.Linear
model = torch.nn.Sequential(OrderedDict(first=linear(4, 6), act=torch.nn.ReLU(), second=linear(6, 2)))
example = torch.ones(2, 4)
"""
KERAS = """
import keras, numpy as np
dense = keras.layers.Dense
model = keras.Sequential([keras.Input((4,)), dense(6, activation="relu", name="first"), dense(2, name="second")])
example = np.ones((2, 4), "float32")
"""
ONNX = """
import numpy as np
from onnx import helper, numpy_helper
nodes = [("MatMul", ["x", "first.weight"], ["a"]), ("Relu", ["a"], ["b"]), ("MatMul", ["b", "second.weight"], ["y"])]
given, made = (helper.make_tensor_value_info(name, 1, [2, size]) for name, size in (("x", 4), ("y", 2)))
stored = [numpy_helper.from_array(np.ones(s, "float32"), f"{n}.weight") for n, s in (("first", (4, 6)), ("second", (6, 2)))]
graph = helper.make_graph([helper.make_node(*node) for node in nodes], "net", [given], [made], stored)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
example = np.ones((2, 4), "float32")
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def loaded(code, *packages):
    """Return which of the packages the code loads in a fresh process."""
    return run(f"{code}\nimport sys; print(*sorted(sys.modules.keys() & {set(packages)}))").split()


def test_importing_nnc_loads_no_framework_and_nothing_slow():
    assert loaded("import nnc", "torch", "tensorflow", "keras", "matplotlib", "sklearn") == []


def test_listing_the_plugins_loads_no_framework():
    assert loaded("import nnc; nnc.algorithms()", "torch", "tensorflow", "keras") == []


def test_importing_a_plugin_loads_no_framework():
    plugins = "import nnc_torch, nnc_tensorflow, nnc_onnx, nnc_pruning, nnc_distillation"

    assert loaded(plugins, "torch", "tensorflow", "keras", "onnx", "onnxruntime") == []


def test_importing_nnc_takes_less_than_half_a_second():
    timed = "import time; start = time.perf_counter(); import nnc; print(time.perf_counter() - start)"

    # The best of three: the first one may also read the disk or compile.
    assert min(float(run(timed)) for _ in range(3)) < 0.5


def test_importing_the_report_loads_no_matplotlib():
    assert loaded("import nnc; nnc.report", "matplotlib", "jinja2") == []


def test_the_schemas_load_nothing_of_nnc():
    assert loaded("import nnc_schemas", "nnc") == []


def test_pruning_an_onnx_file_needs_no_training_framework():
    assert loaded(ONNX + PRUNE, "torch", "tensorflow", "keras") == []


def test_pruning_a_torch_model_never_loads_tensorflow():
    assert loaded(TORCH + PRUNE, "tensorflow", "keras") == []


def test_pruning_a_keras_model_never_loads_torch():
    assert loaded(KERAS + PRUNE, "torch") == []


@pytest.mark.parametrize("name", ["compress", "report"])
def test_a_function_that_bears_its_modules_name_stays_a_function(name):
    assert run(f"import nnc.{name}, nnc; print(callable(nnc.{name}))") == "True\n"
