"""The API server refuses a bad manifest with words that a person understands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import CommandFailedError

from finetune_operator.api.resources import FineTuneJob

SMALLEST: dict[str, Any] = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support-bot"},
    "spec": {
        "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "template": {"name": "qlora"},
        "datasets": [{"uri": "s3://team/support.jsonl"}],
        "gpus": 4,
    },
}
BAD = sorted((Path(__file__).parent / "bad" / "refused").glob("*.yaml"))


@pytest.mark.parametrize("manifest", BAD, ids=lambda path: path.stem)
def test_the_api_server_refuses(manifest: Path, product: Cluster) -> None:
    text = manifest.read_text()
    expected = text.splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(CommandFailedError) as refusal:
        product.kubectl("apply", "--dry-run=server", "-f", "-", input=text)
    assert expected in str(refusal.value)


@pytest.mark.parametrize("manifest", BAD, ids=lambda path: path.stem)
def test_the_models_refuse_offline(manifest: Path) -> None:
    with pytest.raises(ValidationError):
        FineTuneJob.model_validate(yaml.safe_load(manifest.read_text()))


def test_the_smallest_job_is_accepted(product: Cluster) -> None:
    assert "created" in product.kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(SMALLEST))


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ("spec: {gpus: 2}", False),
        ("spec: {training: {peftConfig: {r: 32}}}", False),
        ("spec: {podTemplate: {spec: {priorityClassName: high}}}", False),
        ("spec: {model: {uri: 'hf://another/model'}}", False),
        ("spec: {runPolicy: {suspend: true}}", True),
        ("spec: {samples: {prompts: [another]}}", True),
    ],
)
def test_a_job_that_has_started_keeps_its_spec(change: str, *, allowed: bool, product: Cluster, namespace: str) -> None:
    started = FineTuneJob.model_validate(
        {
            "metadata": {"name": "started"},
            "spec": {
                "model": {"uri": "hf://owner/model"},
                "template": {"name": "not-there"},
                "datasets": [{"uri": "s3://bucket/rows.jsonl"}],
                "gpus": 1,
            },
        }
    ).to_manifest()
    product.apply(started, namespace)
    begun = '{"status": {"startTime": "2026-01-01T00:00:00Z"}}'
    where = ("ftj", "started", "-n", namespace)
    product.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", begun)
    patch = ("patch", *where, "--dry-run=server", "--type=merge", "-p", change)
    if allowed:
        product.kubectl(*patch)
        return
    with pytest.raises(CommandFailedError, match="cannot change once the job has started"):
        product.kubectl(*patch)


def test_jobs_are_found_by_their_phase(product: Cluster, namespace: str) -> None:
    for name, phase in {"lost": "Failed", "won": "Succeeded"}.items():
        product.apply(SMALLEST | {"metadata": {"name": name}}, namespace)
        patch = json.dumps({"status": {"phase": phase}})
        product.kubectl("patch", "ftj", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    found = product.kubectl("get", "ftj", "-n", namespace, "-o", "name", "--field-selector", "status.phase=Failed")
    assert found.split() == ["finetunejob.finetune-operator.io/lost"]
