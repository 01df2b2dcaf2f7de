"""The example that ships, on the cluster: a real pretrained model, cut short to a few steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.support.jobs import Jobs, merged

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "01-pig-latin" / "job.yaml"
FEW_STEPS = {"training": {"trainerConfig": {"max_steps": 4}}, "checkpoints": {"every": 4}}
TWO_PODS = {"gpus": 2, "gpusPerNode": 1, "training": {"device": "cpu"}}


@pytest.mark.parametrize("pods", [pytest.param({}, id="one-pod"), pytest.param(TWO_PODS, id="two-pods")])
def test_the_example_learns_and_answers(pods: dict[str, Any], jobs: Jobs) -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    example["spec"] = merged(merged(example["spec"], FEW_STEPS), pods)
    jobs.apply(example)
    status = jobs.until_phase("pig-latin", "Succeeded", seconds=900)
    trained = status["trained"]
    assert trained["step"] == 4
    assert trained["evalLoss"] < trained["baseEvalLoss"]
    assert [sample["prompt"] for sample in status["samples"]] == example["spec"]["samples"]["prompts"]
    assert all(sample["before"] for sample in status["samples"])
    (adapter,) = (artifact for artifact in status["artifacts"] if artifact["kind"] == "adapter")
    assert re.match(r"pvc://pig-latin-workspace-[0-9a-f]{8}/pig-latin-[0-9a-f]{8}/output", adapter["uri"])
    assert len(jobs.pods("pig-latin", "train")) == (2 if pods else 1)
