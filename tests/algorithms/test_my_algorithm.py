"""The plug-in of examples/my_algorithm is found through its entry point, and keeps the contract that it is tested by."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "my_algorithm"


@pytest.fixture(name="environment")
def give_environment(tmp_path):
    """Return the environment of a process in which the plug-in is installed, as pip would, without pip and its downloads."""
    entry = re.search(r"^\[project\.entry-points\.nnc\]\n(.*)$", (FOLDER / "pyproject.toml").read_text(), re.MULTILINE)[1]
    metadata = tmp_path / "my_algorithm-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-algorithm\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[nnc]\n" + entry.replace('"', "") + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(FOLDER)])}


def test_it_is_listed_beside_the_built_in_algorithms(environment):
    command = [sys.executable, "-c", "from nnc.cli import app; app()", "algorithms", "--json"]

    found = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert {"variance", "l1_norm"} <= {algorithm["name"] for algorithm in found}


def test_its_own_tests_pass(environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER)]

    found = subprocess.run(command, env=environment, cwd=FOLDER, capture_output=True, text=True)

    assert found.returncode == 0, found.stdout


def test_it_takes_fewer_than_forty_lines():
    assert len((FOLDER / "my_algorithm.py").read_text().splitlines()) < 40
