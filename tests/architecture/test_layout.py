"""The shape of the code: size of files, contracts between packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("nnc", "adapters", "algorithms", "schemas", "examples", "benchmarks", "tests")
PACKAGES = (
    "nnc",
    "adapters/nnc_torch",
    "adapters/nnc_tensorflow",
    "adapters/nnc_onnx",
    "algorithms/nnc_pruning",
    "algorithms/nnc_distillation",
    "schemas/nnc_schemas",
)
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_no_file_has_more_than_400_lines(source):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("folder", ["adapters", "algorithms", "schemas"])
def test_a_source_root_is_no_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_packages_import_only_what_the_contracts_allow():
    done = subprocess.run([str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()
