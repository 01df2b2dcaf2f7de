"""Operators and CRDs of other versions: every job goes on with what it started with."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from tests.cluster.conftest import REPOSITORY
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BASE
from tests.cluster.harness.pods import venv_pod_template
from tests.cluster.support.fakes import HOLD, Parts, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.versions import alike, earlier_sources, of_sources, stopped
from tests.cluster.support.waiting import until

STAGES = ("prepare", "train", "publish")
HELD: Parts = dict.fromkeys(STAGES, HOLD)
CRD = REPOSITORY / "crds" / "finetunejobs.yaml"
OPENAPI = "/openapi/v3/apis/finetune-operator.io/v1alpha1"
FUTURE = {"futureField": {"of": ["a", "newer", "version"]}}


def test_the_operator_before_this_one_takes_over_what_runs_and_gives_it_back(
    bare_jobs: Jobs, operator: OperatorProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = earlier_sources(REPOSITORY, tmp_path / "sources")
    with capsys.disabled():
        sys.stdout.write(f"\nthe earlier operator is that of {revision}\n")
    for stage in STAGES:
        start_and_lead_to(bare_jobs, f"ours-{stage}", stage)
    hashes = {stage: bare_jobs.status(f"ours-{stage}")["provenance"]["configHash"] for stage in STAGES}
    with stopped(operator), of_sources(operator, tmp_path / "earlier.log", tmp_path / "sources"):
        for stage in STAGES:
            go_on(bare_jobs, f"ours-{stage}", stage)
            start_and_lead_to(bare_jobs, f"theirs-{stage}", stage)
    for stage in STAGES:
        for name in (f"ours-{stage}", f"theirs-{stage}"):
            status = finish(bare_jobs, name)
            assert (status["attempt"], status["restarts"]) == (1, 0)
            assert status["provenance"]["configHash"] == hashes[stage]
    told = [event["reason"] for stage in STAGES for event in bare_jobs.events(f"ours-{stage}")]
    assert "SpecChangeIgnored" not in told


def test_an_upgrade_changes_neither_image_nor_user_nor_grace_period_of_a_job_that_runs(
    bare_jobs: Jobs, operator: OperatorProcess, tmp_path: Path
) -> None:
    pods = venv_pod_template(Path(sys.prefix), REPOSITORY)
    del pods["spec"]["containers"][0]["image"]
    before = {"PLAN__POD_TEMPLATE": json.dumps(pods), "PLAN__TRAINER_IMAGE": BASE}
    after = {
        "PLAN__TRAINER_IMAGE": "localhost/finetune-newer:test",
        "PLAN__RUN_AS_USER": "65533",
        "PLAN__TERMINATION_GRACE_SECONDS": "90",
    }
    spec: Manifest = {"podTemplate": {"spec": {"terminationGracePeriodSeconds": None}}}
    with stopped(operator):
        with alike(operator, tmp_path / "before.log", **before):
            bare_jobs.apply(fake("foo", HELD, **spec))
            go_on(bare_jobs, "foo", "prepare")
            (first,) = running(bare_jobs, "foo", "train")
        with alike(operator, tmp_path / "after.log", **before | after):
            bare_jobs.apply(fake("bar", **spec))
            end(bare_jobs, first, 70)
            until(lambda: bare_jobs.status("foo").get("attempt") == 2, "the second attempt begins", seconds=60)
            seen = [shape(first)]
            for stage in STAGES[1:]:
                (pod,) = running(bare_jobs, "foo", stage)
                seen.append(shape(pod))
                end(bare_jobs, pod)
            assert seen == [(BASE, 65532, 60)] * 3
            status = bare_jobs.until_phase("foo", "Succeeded", seconds=60)
            assert status["provenance"]["image"] == BASE
            (newer,) = until(lambda: bare_jobs.pods("bar", "prepare"), "the new job has its pod", seconds=30)
            assert shape(newer) == ("localhost/finetune-newer:test", 65533, 90)


def test_what_a_newer_version_has_written_is_ignored(bare_jobs: Jobs, operator: OperatorProcess) -> None:
    bare_jobs.apply(fake("foo", HELD, result=FUTURE | {"version": 2}))
    go_on(bare_jobs, "foo", "prepare")
    running(bare_jobs, "foo", "train")
    bare_jobs.until_phase("foo", "Training", seconds=30)
    with other_crd(bare_jobs.cluster, newer):
        with stopped(operator):
            rewrite_status(bare_jobs, "foo")
            rewrite_resolved(bare_jobs, "foo")
        status = finish(bare_jobs, "foo")
    assert status["futureField"] == FUTURE["futureField"], "it is left to those who know it"
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_an_older_crd_is_named_and_jobs_go_on(bare_jobs: Jobs, operator: OperatorProcess) -> None:
    bare_jobs.apply(fake("foo", HELD))
    running(bare_jobs, "foo", "prepare")
    with other_crd(bare_jobs.cluster, older):
        operator.kill()
        operator.start()
        words = "lacks status.attempts[].tries, status.provenance: apply crds/ of this version"
        until(
            lambda: words in readiness(operator), "/readyz names the fields", seconds=60, story=operator.log.read_text
        )
        logged = [line for line in operator.log.read_text().splitlines() if "crds_of_another_version" in line]
        assert words in logged[-1]
        assert finish(bare_jobs, "foo")["attempt"] == 1
    operator.kill()
    operator.start()
    until(lambda: readiness(operator).strip() == "ok", "nothing is lacking", seconds=30)


def start_and_lead_to(jobs: Jobs, name: str, stage: str) -> None:
    """A job whose stages are held, at this stage."""
    jobs.apply(fake(name, HELD))
    for earlier in STAGES[: STAGES.index(stage)]:
        go_on(jobs, name, earlier)
    running(jobs, name, stage)


def go_on(jobs: Jobs, name: str, stage: str) -> None:
    """Ends this stage well."""
    (pod,) = running(jobs, name, stage)
    end(jobs, pod)


def finish(jobs: Jobs, name: str) -> Manifest:
    """Ends every stage that is left; the status at the end."""
    ended: set[str] = set()

    def let_go() -> Manifest | None:
        for stage in STAGES:
            for pod in jobs.pods(name, stage):
                if pod["status"]["phase"] == "Running" and pod["metadata"]["uid"] not in ended:
                    ended.add(pod["metadata"]["uid"])
                    end(jobs, pod)
        status = jobs.status(name)
        assert status["phase"] != "Failed", jobs.story(name)
        return status if status["phase"] == "Succeeded" else None

    return until(let_go, f"{name} has succeeded", seconds=120, story=lambda: jobs.story(name))


def shape(pod: Manifest) -> tuple[str, int, int]:
    """Image, user and grace period."""
    spec = pod["spec"]
    user = spec["securityContext"]["runAsUser"]
    return spec["containers"][0]["image"], user, spec["terminationGracePeriodSeconds"]


def rewrite_status(jobs: Jobs, name: str) -> None:
    """Adds what this version does not know to the status."""
    patch = json.dumps({"status": FUTURE})
    where = ("-n", jobs.namespace, "--subresource=status", "--type=merge")
    jobs.cluster.kubectl("patch", "ftj", name, *where, "-p", patch)
    assert jobs.status(name)["futureField"] == FUTURE["futureField"]


def rewrite_resolved(jobs: Jobs, name: str) -> None:
    """Adds what this version does not know to the spec that was fixed at the start."""
    found = jobs.cluster.get("configmap", f"{name}-resolved", jobs.namespace)
    spec = json.loads(found["data"]["resolved.json"])
    spec |= FUTURE
    for part in ("model", "training", "pods"):
        spec[part] |= FUTURE
    found["data"]["resolved.json"] = json.dumps(spec)
    kept = {key: found["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    jobs.cluster.kubectl("delete", "configmap", f"{name}-resolved", "-n", jobs.namespace)
    jobs.cluster.apply(found | {"metadata": kept}, jobs.namespace)


def newer(fields: Manifest) -> None:
    """The status of a version that has a field more."""
    fields["futureField"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def older(fields: Manifest) -> None:
    """The status of a version that has some fields less."""
    del fields["provenance"], fields["attempts"]["items"]["properties"]["tries"]


@contextmanager
def other_crd(cluster: Cluster, change: Callable[[Manifest], None]) -> Iterator[None]:
    """While the FineTuneJob CRD is that of another version."""
    definition = yaml.safe_load(CRD.read_text())
    changed = deepcopy(definition)
    change(status_schema(changed)["properties"])
    try:
        serve(cluster, changed)
        yield
    finally:
        serve(cluster, definition)


def serve(cluster: Cluster, definition: Manifest) -> None:
    """Applies a CRD and waits until the API server serves its fields."""
    cluster.apply(definition)
    wanted = set(status_schema(definition)["properties"])

    def served() -> bool:
        schemas = json.loads(cluster.kubectl("get", "--raw", OPENAPI))["components"]["schemas"]
        (job,) = (schema for name, schema in schemas.items() if name.endswith(".FineTuneJob"))
        return set(job["properties"]["status"]["properties"]) == wanted

    until(served, "the CRD is served", seconds=60)


def status_schema(definition: Manifest) -> Manifest:
    schema: Manifest = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


def readiness(operator: OperatorProcess) -> str:
    """What /readyz says; empty while it is not up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.health}/readyz", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
