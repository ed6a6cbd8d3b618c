"""NNI's three workflows, as a user starts them, on a few images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LAST_STAGE = {
    "train_prune_finetune": "small, fine-tuned",
    "prune_while_training": "small, no fine-tuning needed",
    "prune_retrain": "small, trained from scratch",
}


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("workflow", LAST_STAGE)
def test_a_workflow_ends_with_a_small_network(workflow, framework):
    command = [sys.executable, str(EXAMPLES / f"{workflow}.py"), "--framework", framework, "--limit", "64", "--epochs", "1"]

    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})

    assert LAST_STAGE[workflow] in done.stdout
    assert "109,295" in done.stdout
