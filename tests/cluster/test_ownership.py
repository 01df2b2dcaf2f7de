"""What is the job's own, and what is not: nothing is taken over, and a job of the same name is another job."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.support.fakes import DEAF, HOLD, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, condition
from tests.cluster.support.waiting import until
from tests.cluster.test_harness import pod, run_pod

PAIR: Manifest = {"gpus": 2, "gpusPerNode": 1}
ELSEWHERE: Manifest = {"output": {"uri": "s3://bucket/out"}}
"""The result is not in the claim, which therefore goes with its job."""
SOON = 60.0
"""A job that is stalled looks again after half a minute."""


def test_an_object_of_somebody_else_is_named_and_left_alone_until_it_is_removed(bare_jobs: Jobs) -> None:
    owner = owner_of_others(bare_jobs)
    taken = {
        "config": other("ConfigMap", "config-resolved", owner, data={"resolved.json": "{}"}),
        "claim": other("PersistentVolumeClaim", "claim-workspace", owner, spec=CLAIM),
        "first": other("Job", "first-prepare", owner, spec=HELD),
        "later": other("Job", "later-train", owner, spec=HELD),
        "service": other("Service", "service-train", None, spec={"ports": [{"port": 80}]}),
    }
    for manifest in taken.values():
        bare_jobs.cluster.apply(manifest, bare_jobs.namespace)
    before = {name: settled(bare_jobs, manifest) for name, manifest in taken.items()}
    for name in taken:
        bare_jobs.apply(fake(name, **ELSEWHERE, **(PAIR if name == "service" else {})))
    for name, manifest in taken.items():
        message = until_stalled(bare_jobs, name, "NameTaken")
        whose = "nobody" if name == "service" else f"ConfigMap team, uid {owner}"
        assert f"{manifest['kind']} {manifest['metadata']['name']}, which belongs to {whose}" in message
    assert {name: read(bare_jobs, manifest) for name, manifest in taken.items()} == before
    for manifest in taken.values():
        delete(bare_jobs, manifest["kind"], manifest["metadata"]["name"])
    for name in taken:
        status = bare_jobs.until_phase(name, "Succeeded", seconds=SOON + 60)
        assert condition(status, "Stalled")["status"] == "False"


def test_a_claim_with_the_only_result_outlives_its_job_and_the_next_one_of_that_name(bare_jobs: Jobs) -> None:
    claims, results = [], []
    for _ in range(2):
        bare_jobs.apply(fake("foo"))
        uri = bare_jobs.until_phase("foo", "Succeeded", seconds=90)["checkpoints"][0]["uri"]
        claims.append(uri.removeprefix("pvc://").split("/")[0])
        results.append(uri)
        delete(bare_jobs, "ftj", "foo")
        until(
            lambda: not bare_jobs.cluster.get("jobs", namespace=bare_jobs.namespace),
            "the job's children are gone",
            seconds=30,
        )
    assert claims[0] != claims[1]
    kept = bare_jobs.cluster.get("pvc", namespace=bare_jobs.namespace)
    assert sorted(claim["metadata"]["name"] for claim in kept) == sorted(claims)
    assert not [claim for claim in kept if "deletionTimestamp" in claim["metadata"]]
    for number, uri in enumerate(results):
        assert content(bare_jobs, f"reader-{number}", f"{uri}/weights") == "trained"


def test_a_replaced_job_waits_until_its_predecessor_is_gone_and_then_runs(bare_jobs: Jobs) -> None:
    bare_jobs.apply(fake("foo", {"train": DEAF}, **ELSEWHERE))
    (old,) = running(bare_jobs, "foo", "train")
    uid = bare_jobs.get("foo")["metadata"]["uid"]
    manifest = json.dumps(fake("foo", {"train": HOLD}, **ELSEWHERE))
    bare_jobs.cluster.kubectl("replace", "--force", "-n", bare_jobs.namespace, "-f", "-", input=manifest)
    assert bare_jobs.get("foo")["metadata"]["uid"] != uid
    message = until_reason(bare_jobs, "foo", "PredecessorGoing")
    assert uid in message, message
    (new,) = running(bare_jobs, "foo", "train")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert bare_jobs.status("foo")["attempt"] == 1
    end(bare_jobs, new)
    bare_jobs.until_phase("foo", "Succeeded", seconds=60)


def test_copies_of_a_jobs_children_change_nothing(bare_jobs: Jobs) -> None:
    owner = owner_of_others(bare_jobs)
    bare_jobs.apply(fake("foo", {"train": HOLD}))
    (pod_of_job,) = running(bare_jobs, "foo", "train")
    bare_jobs.until_phase("foo", "Training", seconds=30)
    original = bare_jobs.cluster.get("job", "foo-train", bare_jobs.namespace)
    for name, owners in (
        ("copy", None),
        ("restored", original["metadata"]["ownerReferences"]),
        ("manual", [ref(owner)]),
    ):
        bare_jobs.cluster.apply(copy(original, name, owners), bare_jobs.namespace)
    ended = {"copy", "restored", "manual"}
    until(lambda: failed_jobs(bare_jobs) == ended, "the copies have failed", seconds=60)
    status = bare_jobs.status("foo")
    assert (status["phase"], status["attempt"], status["restarts"]) == ("Training", 1, 0)
    end(bare_jobs, pod_of_job)
    status = bare_jobs.until_phase("foo", "Succeeded", seconds=60)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["ok"]
    assert ended <= {job["metadata"]["name"] for job in bare_jobs.cluster.get("jobs", namespace=bare_jobs.namespace)}


def test_what_a_deleted_job_has_left_behind_is_not_adopted(bare_jobs: Jobs) -> None:
    bare_jobs.apply(fake("foo", {"train": HOLD}, **ELSEWHERE))
    (orphan,) = running(bare_jobs, "foo", "train")
    bare_jobs.cluster.kubectl("delete", "ftj", "foo", "-n", bare_jobs.namespace, "--cascade=orphan")
    bare_jobs.apply(fake("foo", **ELSEWHERE))
    assert "belongs to nobody" in until_stalled(bare_jobs, "foo", "NameTaken", "PersistentVolumeClaim foo-workspace")
    still = bare_jobs.cluster.get("pod", orphan["metadata"]["name"], bare_jobs.namespace)
    assert still["status"]["phase"] == "Running"
    for kind, name in (("job", "foo-train"), ("job", "foo-prepare"), ("pvc", "foo-workspace"), ("cm", "foo-resolved")):
        delete(bare_jobs, kind, name)
    status = bare_jobs.until_phase("foo", "Succeeded", seconds=SOON + 60)
    assert (status["attempt"], status["restarts"]) == (1, 0)


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
HELD = {
    "suspend": True,
    "template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "other", "image": "localhost/other:test"}]},
    },
}


def ref(owner: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": "team", "uid": owner, "controller": True}


def owner_of_others(jobs: Jobs) -> str:
    """Creates somebody else's object that owns others; its uid."""
    jobs.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team"}}, jobs.namespace)
    uid: str = jobs.cluster.get("configmap", "team", jobs.namespace)["metadata"]["uid"]
    return uid


def other(kind: str, name: str, owner: str | None, **content: Any) -> Manifest:
    """Somebody else's object."""
    metadata: Manifest = {"name": name, "ownerReferences": [ref(owner)] if owner else []}
    return {"apiVersion": "batch/v1" if kind == "Job" else "v1", "kind": kind, "metadata": metadata, **content}


def read(jobs: Jobs, manifest: Manifest) -> str:
    return json.dumps(jobs.cluster.get(manifest["kind"], manifest["metadata"]["name"], jobs.namespace))


def settled(jobs: Jobs, manifest: Manifest) -> str:
    """The object once its own controller has done its part."""
    signs = {"PersistentVolumeClaim": '"Bound"', "Job": '"Suspended"'}
    sign = signs.get(manifest["kind"], "")
    return until(lambda: text if sign in (text := read(jobs, manifest)) else "", f"{sign} is in the status", seconds=30)


def copy(original: Manifest, name: str, owners: list[Manifest] | None) -> Manifest:
    """What a backup, or `kubectl create job --from`, makes of a Job, labels and all; its pods fail for good."""
    template = json.loads(json.dumps(original["spec"]["template"]))
    for key in ("controller-uid", "job-name"):
        template["metadata"]["labels"].pop(key, None)
        template["metadata"]["labels"].pop(f"batch.kubernetes.io/{key}", None)
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] == "FAKE_STAGE":
            variable["value"] = json.dumps({"parts": {"train": 64}, "result": {}})
    labels = {key: value for key, value in original["metadata"]["labels"].items() if "batch.kubernetes" not in key}
    metadata = {"name": name, "labels": labels, "ownerReferences": owners or []}
    spec = {"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def failed_jobs(jobs: Jobs) -> set[str]:
    found = jobs.cluster.get("jobs", namespace=jobs.namespace)
    return {job["metadata"]["name"] for job in found if condition(job["status"], "Failed").get("status") == "True"}


def delete(jobs: Jobs, kind: str, name: str) -> None:
    jobs.cluster.kubectl("delete", kind, name, "-n", jobs.namespace)


def until_stalled(jobs: Jobs, name: str, reason: str, about: str = "") -> str:
    """The message once the job is stalled for this reason, which tells of this object."""
    message = until_reason(jobs, name, reason, about)
    assert condition(jobs.status(name), "Stalled")["status"] == "True"
    return message


def until_reason(jobs: Jobs, name: str, reason: str, about: str = "") -> str:
    """The message once the job gives this reason, and tells of this object."""

    def message() -> str:
        status = jobs.status(name)
        found: str = status.get("message", "")
        return found if status.get("reason") == reason and about in found else ""

    return until(message, f"{name} says {reason} {about}", seconds=SOON, story=lambda: jobs.story(name))


def content(jobs: Jobs, reader: str, uri: str) -> str:
    """A file of a claim, read by a pod."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    volumes = {"claim": {"persistentVolumeClaim": {"claimName": claim}}}
    return run_pod(jobs.cluster, jobs.namespace, pod(reader, "cat", f"/claim/{path}", volumes=volumes)).strip()
