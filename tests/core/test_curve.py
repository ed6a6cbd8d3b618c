"""`nnc report`: the table and the curve of a run that is on disk."""

import json

import pytest
from typer.testing import CliRunner

from nnc.cli import app

ROUNDS = [
    {"number": n, "task": {"sparsity": {"a": s, "b": 0.0}}, "metric": metric, "parameters": left, "seconds": 1.25}
    for n, s, metric, left in ((1, 0.2, 0.975, 9000), (2, 0.4, 0.95, 8000))
]
RUN = {"schedule": "agp", "rounds": 2, "parameters": 10_000}
STAGES = {"recipe": [], "finished": [{"name": "teacher", "metric": 0.9, "parameters": 12_345, "seconds": 3.0, "heads": []}]}


def report(folder, *options, **files):
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return CliRunner().invoke(app, ["report", str(folder), *options])


def test_a_scheduled_run_is_a_table_of_its_rounds_and_a_curve(tmp_path):
    found = report(tmp_path, run=RUN, rounds=ROUNDS)

    assert found.exit_code == 0
    cells = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in found.stdout.splitlines() if "\u2502" in line]
    assert cells == [
        ["0", "10,000", "0.0%", "", "0.0"],
        ["1", "9,000", "10.0%", "0.9750", "1.2"],
        ["2", "8,000", "20.0%", "0.9500", "1.2"],
    ]
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_a_run_of_stages_names_its_stages(tmp_path):
    found = json.loads(report(tmp_path, "--json", "--picture", str(tmp_path / "other.svg"), stages=STAGES).stdout)

    assert [(point["name"], point["parameters"], point["metric"]) for point in found["points"]] == [("teacher", 12_345, 0.9)]
    assert found["picture"] == str(tmp_path / "other.svg")
    assert (tmp_path / "other.svg").is_file()


def test_a_run_without_a_metric_has_no_curve(tmp_path):
    found = report(tmp_path, run=RUN, rounds=[{**one, "metric": None} for one in ROUNDS])

    assert found.exit_code == 0
    assert "saved" not in found.stdout
    assert not (tmp_path / "curve.svg").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no run: neither run.json of a scheduled pruner nor stages.json of nnc.run is in it"),
        ({"run": RUN}, "the run has no finished round yet"),
        ({"run": RUN, "rounds": [{"number": 1}]}, "the run cannot be read"),
        ({"stages": {"recipe": []}}, "the run cannot be read: KeyError('finished')"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_one_clear_error(tmp_path, files, message):
    found = report(tmp_path, **files)

    assert found.exit_code == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr
