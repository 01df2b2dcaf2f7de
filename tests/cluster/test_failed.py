"""What only the prepare stage can know fails with a name, a field and advice before any training pod exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.support.jobs import Jobs, condition, job
from tests.cluster.support.store import SECRET, Store, rows
from tests.cluster.support.waiting import until

BAD = sorted((Path(__file__).parent / "bad" / "failed").glob("*.yaml"))


def bad_data(store: Store) -> None:
    """Put what the manifests of bad/failed point at into the bucket."""
    good = rows(20)
    store.put_rows("empty", [])
    store.put_rows("third-invalid", [*good[:14], *['{"prompt": "w1 w2", "completion": ""}'] * 3, *["{broken"] * 3])
    store.s3.put(store.bucket, "models/no-config/README.md", b"# no model here\n")


def expectations(manifest: Path) -> dict[str, str]:
    return dict(line[2:].split(": ", 1) for line in manifest.read_text().splitlines() if line.startswith("# "))


def test_bad_jobs_fail_before_training_with_advice(jobs: Jobs, store: Store) -> None:
    bad_data(store)
    for manifest in BAD:
        jobs.apply(yaml.safe_load(manifest.read_text()))
    problems = []
    for manifest in BAD:
        expected = expectations(manifest)
        status = jobs.until_phase(manifest.stem, "Failed", seconds=400)
        stalled, failed = condition(status, "Stalled"), condition(status, "Failed")
        seen = f"{manifest.stem}: reason {status['reason']}, message {status['message']!r}"
        wanted = (expected["field"], expected["expect"])
        if status["reason"] != expected["reason"] or not all(words in status["message"] for words in wanted):
            problems.append(f"{seen}\n  expected {expected}")
        assert (stalled["status"], failed["status"]) == ("True", "True"), seen
        assert condition(status, "Ready")["status"] == "False", seen
        assert jobs.pods(manifest.stem, "train") == [], seen
        assert [e for e in jobs.events(manifest.stem) if e["type"] == "Warning"], seen
    assert not problems, "\n".join(problems)


def test_what_cannot_go_together_is_stalled_before_there_is_a_pod(jobs: Jobs, store: Store) -> None:
    quantised = {"quantizationConfig": {"load_in_4bit": True}}
    jobs.apply(with_secrets(job("odd", store.model, store.data, training=quantised)))
    status = stalled_with(jobs, "odd", "InvalidSpec")
    assert status["message"].startswith("spec.training.quantizationConfig: quantizationConfig does nothing with method")
    assert "qlora" in status["message"]
    assert jobs.pods("odd", "prepare") == []
    jobs.cluster.kubectl("delete", "ftj", "odd", "-n", jobs.namespace)


def test_a_job_waits_for_its_template_and_goes_on_when_it_appears(jobs: Jobs, store: Store) -> None:
    jobs.apply(with_secrets(job("waits", store.model, store.data, template={"name": "ours"})))
    status = stalled_with(jobs, "waits", "TemplateNotFound")
    assert "ours" in status["message"]
    assert "kubectl get" in status["message"]
    jobs.cluster.apply(
        {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneTemplate",
            "metadata": {"name": "ours"},
            "spec": {"training": {"method": "lora"}},
        },
        jobs.namespace,
    )
    jobs.until_phase("waits", "Preparing", seconds=30)
    jobs.cluster.kubectl("delete", "ftj", "waits", "-n", jobs.namespace)


def test_a_job_waits_for_its_secret_and_goes_on_when_it_appears(jobs: Jobs, store: Store) -> None:
    late = with_secrets(job("late", store.model, store.data))
    late["spec"]["model"]["secretRef"] = {"name": "late-credentials"}
    jobs.apply(late)
    status = stalled_with(jobs, "late", "SecretNotFound")
    assert "late-credentials" in status["message"]
    assert "spec.model.secretRef" in status["message"]
    secret = store.secret()
    secret["metadata"]["name"] = "late-credentials"
    jobs.cluster.apply(secret, jobs.namespace)
    jobs.until_phase("late", "Preparing", seconds=60)
    jobs.cluster.kubectl("delete", "ftj", "late", "-n", jobs.namespace)


def test_a_pod_that_cannot_start_says_why(jobs: Jobs, store: Store) -> None:
    picky = with_secrets(job("picky", store.model, store.data))
    picky["spec"]["podTemplate"] = {"spec": {"containers": [{"name": "trainer", "image": "no-such-image:1"}]}}
    jobs.apply(picky)
    until(
        lambda: "no-such-image" in jobs.status("picky").get("message", ""),
        "the message names the image",
        seconds=60,
        story=lambda: jobs.story("picky"),
    )
    jobs.cluster.kubectl("delete", "ftj", "picky", "-n", jobs.namespace)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(
            {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"cpu": "no"}}}]}}, id="value"
        ),
        pytest.param({"spec": {"volumes": [{"name": "data", "hostPathh": {"path": "/"}}]}}, id="field"),
    ],
)
def test_a_pod_template_that_kubernetes_refuses_is_shown_in_its_words(
    template: dict[str, Any], jobs: Jobs, store: Store
) -> None:
    manifest = with_secrets(job("refused", store.model, store.data))
    manifest["spec"]["podTemplate"] = template
    jobs.apply(manifest)
    status = until(
        lambda: s if condition(s := jobs.status("refused"), "Stalled").get("status") == "True" else None,
        "the job is stalled",
        seconds=30,
        story=lambda: jobs.story("refused"),
    )
    assert "podTemplate" in status["message"], status


def with_secrets(manifest: dict[str, Any]) -> dict[str, Any]:
    for source in (manifest["spec"]["model"], *manifest["spec"]["datasets"]):
        source["secretRef"] = {"name": SECRET}
    return manifest


def stalled_with(jobs: Jobs, name: str, reason: str) -> dict[str, Any]:
    def stalled() -> dict[str, Any] | None:
        status = jobs.status(name)
        found = condition(status, "Stalled")
        return status if (found.get("status"), found.get("reason")) == ("True", reason) else None

    return until(stalled, f"{name} is stalled with {reason}", seconds=30, story=lambda: jobs.story(name))
