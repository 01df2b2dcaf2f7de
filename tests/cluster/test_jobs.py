"""Jobs that succeed on a real cluster: what the user sees, what it costs, and what is left."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.cluster.harness.cluster import Request
from tests.cluster.support.jobs import Jobs, condition, job
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.store import SECRET, Store
from tests.cluster.support.waiting import until

SAMPLES = {"prompts": ["w1 w2 w3", "w7 w8"]}


def stored(store: Store, name: str, **spec: Any) -> dict[str, Any]:
    """A job that reads from and writes to the object store."""
    manifest = job(name, store.model, store.data, output={"uri": store.output(name)}, samples=SAMPLES, **spec)
    for holder in (manifest["spec"]["model"], *manifest["spec"]["datasets"], manifest["spec"]["output"]):
        holder["secretRef"] = {"name": SECRET}
    return manifest


def test_one_pod_trains_publishes_and_leaves_the_artifact(jobs: Jobs, store: Store, operator: OperatorProcess) -> None:
    jobs.apply(stored(store, "one"))
    status = jobs.until_phase("one", "Succeeded")
    published_artifact_is_whole(status, store)
    story_is_told(status, jobs)
    survives_a_restart_unchanged_and_costs_nothing(jobs, operator)
    jobs.cluster.kubectl("delete", "ftj", "one", "-n", jobs.namespace)
    until(
        lambda: not jobs.cluster.get("pods,jobs,services,configmaps,pvc", namespace=jobs.namespace, selector=OURS),
        "the children are gone",
        seconds=90,
        story=lambda: jobs.cluster.kubectl("get", "all,cm,pvc", "-n", jobs.namespace),
    )
    published_artifact_is_whole(status, store)


OURS = "app.kubernetes.io/managed-by=finetune-operator"


def published_artifact_is_whole(status: dict[str, Any], store: Store) -> None:
    """The artifact's files are in the bucket and have the checksums that were published with them."""
    (adapter,) = (artifact for artifact in status["artifacts"] if artifact["kind"] == "adapter")
    bucket, _, prefix = adapter["uri"].removeprefix("s3://").partition("/")
    sums = store.s3.get(bucket, f"{prefix.rstrip('/')}/SHA256SUMS").decode().splitlines()
    names = {line.split(maxsplit=1)[1].lstrip("*"): line.split(maxsplit=1)[0] for line in sums}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= set(names)
    for name, digest in names.items():
        data = store.s3.get(bucket, f"{prefix.rstrip('/')}/{name}")
        assert hashlib.sha256(data).hexdigest() == digest, name
    assert adapter["sha256"]
    assert adapter["bytes"] > 0


def story_is_told(status: dict[str, Any], jobs: Jobs) -> None:
    """Everything a user would ask is in the status and in the events."""
    for kind in ("Ready", "Prepared", "Trained", "Published", "Complete"):
        assert condition(status, kind)["status"] == "True", (kind, status["conditions"])
    for kind in ("Reconciling", "Stalled"):
        assert condition(status, kind)["status"] == "False", (kind, status["conditions"])
    assert status["progress"]["percent"] == "100%"
    assert status["dataset"]["rows"] == 64
    assert float(status["metrics"]["loss"]) > 0
    assert status["trainableParameters"] < status["totalParameters"]
    assert [sample["prompt"] for sample in status["samples"]] == SAMPLES["prompts"]
    assert status["checkpoints"][-1]["verified"]
    assert status["provenance"]["configHash"]
    assert len(json.dumps(status)) < 32 * 1024
    reasons = [event["reason"] for event in jobs.events("one")]
    for reason in ("Accepted", "Prepared", "Training", "Trained", "Published", "Succeeded"):
        assert reason in reasons, (reason, reasons)
    row = jobs.cluster.kubectl("get", "ftj", "one", "-n", jobs.namespace, "--no-headers").split()
    assert row[:3] == ["one", "Succeeded", "100%"], row


def writes(counts: Counter[Request]) -> Counter[Request]:
    """Requests that change our kinds of objects (a Lease is renewed by design)."""
    return Counter(
        {
            request: count
            for request, count in counts.items()
            if request.verb in {"POST", "PUT", "PATCH", "APPLY", "DELETE"}
            and request.resource in {"finetunejobs", "jobs", "configmaps", "services", "pods"}
            and (request.resource != "pods" or request.subresource == "")
        }
    )


def survives_a_restart_unchanged_and_costs_nothing(jobs: Jobs, operator: OperatorProcess) -> None:
    """A restarted operator looks at a finished and at a waiting job, finds nothing to do, and writes nothing."""
    waiting = job("waiting", "hf://owner/model", "s3://bucket/rows.jsonl", template={"name": "none"})
    jobs.apply(waiting)
    until(lambda: jobs.status("waiting").get("reason") == "TemplateNotFound", "the job waits", seconds=30)
    before = {name: jobs.get(name)["status"] for name in ("one", "waiting")}
    counts = writes(jobs.cluster.apiserver_request_counts())
    operator.kill()
    operator.start()
    seen = until(operator.reconciles, "the waiting job was reconciled again")
    for name in before:
        jobs.cluster.kubectl("annotate", "ftj", name, "-n", jobs.namespace, "tests/nudge=1")
    until(lambda: operator.reconciles() > seen, "the change was seen", seconds=30)
    after = {name: jobs.get(name)["status"] for name in before}
    assert json.dumps(after) == json.dumps(before)
    changed = writes(jobs.cluster.apiserver_request_counts()) - counts
    assert sum(changed.values()) == len(before), f"only the annotations are writes: {changed}"


def test_two_pods_find_each_other_and_train_at_world_size_two(jobs: Jobs, store: Store, tmp_path: Path) -> None:
    jobs.apply(stored(store, "two", gpus=2, gpusPerNode=1))
    watched = finetune(jobs, "watch", "two")
    status = jobs.until_phase("two", "Succeeded", seconds=10)
    for word in ("Preparing", "Training", "Publishing", status["artifacts"][0]["sha256"]):
        assert word in watched, watched
    saved = tmp_path / "two.log"
    finetune(jobs, "logs", "two", "--save", str(saved))
    for title in ("==> prepare-0 ", "==> train-0 ", "==> train-1 ", "==> publish-0 "):
        assert title in saved.read_text()
    pods = jobs.pods("two", "train")
    assert sorted(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods) == ["0", "1"]
    assert all("nvidia.com/gpu" not in json.dumps(pod["spec"]) for pod in pods)
    log = "\n".join(jobs.cluster.kubectl("logs", pod["metadata"]["name"], "-n", jobs.namespace) for pod in pods)
    assert "world size 2" in log, log[-4000:]
    published_artifact_is_whole(status, store)


def finetune(jobs: Jobs, *words: str) -> str:
    """What a command of the CLI prints, run as a user would."""
    command = [str(Path(sys.prefix) / "bin" / "finetune"), *words, "--namespace", jobs.namespace]
    environment = os.environ | {"KUBECONFIG": str(jobs.cluster.kubeconfig), "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_volume_the_stages_hand_over_through_the_bucket(jobs: Jobs, store: Store) -> None:
    manifest = stored(store, "bare")
    del manifest["spec"]["workspace"]
    jobs.apply(manifest)
    status = jobs.until_phase("bare", "Succeeded")
    assert not jobs.cluster.get("pvc", namespace=jobs.namespace)
    published_artifact_is_whole(status, store)
    assert not [key for key in store.s3.keys(store.bucket, "out/bare/") if ".handover" in key]
