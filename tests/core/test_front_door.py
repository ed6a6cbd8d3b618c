"""`import nnc` is cheap, its names are what they are promised to be, and a module never hides a function."""

import subprocess
import sys

import nnc


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_nnc_loads_next_to_nothing():
    heavy = "torch tensorflow keras pydantic rich matplotlib numpy typer pluggy"

    assert run(f"import sys, nnc; print(*(name for name in {heavy.split()} if name in sys.modules))") == []


def test_finding_the_algorithms_loads_no_framework():
    found = run("import sys, nnc; nnc.algorithms(); print(*(name for name in ('torch', 'tensorflow', 'keras') if name in sys.modules))")

    assert found == []


def test_importing_nnc_takes_less_than_half_a_second():
    seconds = "import time; start = time.perf_counter(); import nnc; print(time.perf_counter() - start)"

    assert min(float(run(seconds)[0]) for _ in range(3)) < 0.5


def test_a_module_never_takes_the_place_of_the_function_of_its_name():
    found = run("import nnc.report, nnc.compress, nnc; print(type(nnc.report).__name__, type(nnc.compress).__name__)")

    assert found == ["function", "function"]


def test_every_public_name_is_there():
    assert {name for name in nnc.__all__ if getattr(nnc, name, None) is None} == set()
    assert set(nnc.__all__) <= set(dir(nnc))
