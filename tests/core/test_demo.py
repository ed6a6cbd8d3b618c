"""`nnc demo` from the beginning to the saved models, on a few images."""

import pytest
from typer.testing import CliRunner

from nnc.cli import app


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_demo_prints_its_table_and_saves_small_models(framework, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["demo", "--framework", framework, "--epochs", "1", "--limit", "64", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    lines = [line.split("│") for line in result.stdout.splitlines() if "│" in line]
    rows = {line[1].strip(): [cell.strip() for cell in line[2:6]] for line in lines}

    assert result.exit_code == 0, result.output
    assert rows["parameters"] == ["431,080", "431,080", "109,295", "109,295"]
    # Masks change numbers, not shapes: the masked network still multiplies as much.
    assert rows["MACs per image"] == ["2,293,000", "2,293,000", "646,500", "646,500"]
    # The small network is the masked one.
    assert rows["accuracy"][1] == rows["accuracy"][2]
    assert "data: " in result.stdout and "the first 64 of each split" in result.stdout.replace("\n", " ")
    assert (tmp_path / framework / "small" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_on_all_of_mnist_fine_tuning_gives_the_accuracy_back(framework, tmp_path):
    from nnc.demo import Settings, run_demo
    from nnc.mnist import load_digits
    from nnc.registry import registry

    digits = load_digits(download=False)
    if not digits.source.startswith("MNIST"):
        pytest.skip("NNC_DATA names no MNIST")
    result = run_demo(registry().demos[framework](), digits, Settings(), tmp_path, lambda: None)
    trained, _, _, tuned = (stage.accuracy for stage in result.stages)

    assert trained >= 0.988
    assert tuned >= trained - 0.003
