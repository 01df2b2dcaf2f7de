"""What one namespace's pods and jobs do, other namespaces do not notice; nor does the operator end by it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.support.fakes import HOLD, fake, running
from tests.cluster.support.jobs import Jobs, Manifest
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import until
from tests.cluster.support.webhooks import SILENT, in_the_way

HOSTILE = {"silent": "timeout", "huge": "too_large", "trickle": "timeout", "redirect": "refused"}
"""What a pod does to whoever asks for its progress, and how the operator counts it."""
MEMORY_MIB = 32
CROWD = 64
WRITE_SECONDS = 4.0
"""How long the operator waits for one write to be answered: see Settings.longest_write_seconds."""


@pytest.fixture
def neighbour(bare_jobs: Jobs) -> Iterator[Jobs]:
    """Another namespace."""
    jobs = Jobs(bare_jobs.cluster, f"{bare_jobs.namespace}-next")
    jobs.cluster.kubectl("create", "namespace", jobs.namespace)
    yield jobs
    jobs.cluster.kubectl("delete", "namespace", jobs.namespace, "--wait=false")


def light(name: str, part: str = HOLD) -> Manifest:
    """A job without a volume."""
    return fake(name, {"train": part}, workspace=None, output={"uri": "s3://bucket/out"})


def forget_peak(process: int) -> int:
    """The resident memory of a process in KiB, from which its peak is measured from now on."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return peak(process)


def peak(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def scrapes(operator: OperatorProcess, outcome: str) -> float:
    return operator.total("finetune_scrapes_total", f'outcome="{outcome}"')


def test_hostile_pods_neither_end_the_operator_nor_fill_its_memory_nor_keep_others_from_being_asked(
    bare_jobs: Jobs, neighbour: Jobs, operator: OperatorProcess
) -> None:
    assert operator.process is not None
    process = operator.process.pid
    before = forget_peak(process)
    counted = {outcome: scrapes(operator, outcome) for outcome in HOSTILE.values()}
    for part in HOSTILE:
        bare_jobs.apply(light(part, part))
    for part in HOSTILE:
        running(bare_jobs, part, "train")
    until(
        lambda: all(scrapes(operator, outcome) >= count + 4 for outcome, count in counted.items()),
        "every hostile pod was asked again and again",
        seconds=60,
        story=operator.scrape,
    )
    neighbour.apply(light("neighbour", "pieces"))
    status = neighbour.until_step("neighbour", 7, seconds=60)
    assert status["progress"]["step"] == 7, "a report that came in many segments"
    assert operator.process.poll() is None
    assert operator.process.pid == process
    assert peak(process) - before < MEMORY_MIB * 1024
    for part in HOSTILE:
        status = bare_jobs.status(part)
        assert status["phase"] == "Training"
        assert "step" not in (status.get("progress") or {}), status["progress"]


@pytest.fixture
def patient_operator(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator with a lease that is long enough for its writes to take WRITE_SECONDS, as by default."""
    settings = dict(operator.settings)
    operator.stop()
    operator.settings |= {"LEASE_DURATION_SECONDS": "15", "LEASE_RENEW_SECONDS": "2"}
    yield operator.start()
    operator.stop()
    operator.settings.clear()
    operator.settings.update(settings)
    operator.start()


def test_jobs_that_hang_in_one_namespace_do_not_delay_another_namespaces_job(
    bare_jobs: Jobs, neighbour: Jobs, patient_operator: OperatorProcess
) -> None:
    crowd = [light(f"slow-{number}") for number in range(CROWD)]
    with in_the_way(bare_jobs.cluster, bare_jobs.namespace, SILENT):
        apply_all(bare_jobs, crowd)
        until(
            lambda: patient_operator.total("controller_runtime_active_workers") >= 8,
            "most workers wait for an answer",
            seconds=30,
            story=patient_operator.scrape,
        )
        assert seconds_to_prepare(neighbour) < 2 * WRITE_SECONDS
        assert not bare_jobs.cluster.get("jobs", namespace=bare_jobs.namespace), "the crowd did hang"


def test_jobs_that_crash_in_one_namespace_do_not_delay_another_namespaces_job(bare_jobs: Jobs, neighbour: Jobs) -> None:
    """The kubelet refuses a pod whose node is not the one that it selects: it fails at once, and costs no container."""
    crowd = [light(f"crash-{number}") for number in range(CROWD)]
    for manifest in crowd:
        manifest["spec"]["podTemplate"]["spec"] |= {"nodeName": "node", "nodeSelector": {"never": "there"}}
    apply_all(bare_jobs, crowd)
    until(
        lambda: len(bare_jobs.cluster.get("pods", namespace=bare_jobs.namespace)) >= CROWD // 2,
        "half of the crowd has crashed",
        seconds=60,
    )
    assert seconds_to_prepare(neighbour) < 10


def apply_all(jobs: Jobs, manifests: list[Manifest]) -> None:
    jobs.cluster.apply({"apiVersion": "v1", "kind": "List", "items": manifests}, jobs.namespace)


def seconds_to_prepare(jobs: Jobs) -> float:
    """From a job's creation to that of its first Job."""
    began = time.monotonic()
    jobs.apply(light("quick"))
    until(
        lambda: jobs.cluster.get("jobs", namespace=jobs.namespace),
        "the first Job is there",
        seconds=60,
        every=0.1,
        story=lambda: jobs.story("quick"),
    )
    return time.monotonic() - began


@pytest.mark.parametrize("depth", [250, 5_000])
def test_a_job_that_is_nested_to_break_its_reader_stops_nobody_also_after_a_restart(
    bare_jobs: Jobs, neighbour: Jobs, operator: OperatorProcess, depth: int
) -> None:
    bomb = json.dumps(light(f"bomb-{depth}")).replace('"terminationGracePeriodSeconds": 10', '"a": %s')
    body = bomb % ('{"a":' * depth + "1" + "}" * depth)
    path = f"/apis/finetune-operator.io/v1alpha1/namespaces/{bare_jobs.namespace}/finetunejobs"
    bare_jobs.cluster.kubectl("create", "--raw", path, "-f", "-", input=body)
    operator.kill()
    operator.start()
    neighbour.apply(light("unharmed"))
    running(neighbour, "unharmed", "train")
    asked = ("get", "ftj", f"bomb-{depth}", "-n", bare_jobs.namespace, "-o", "jsonpath={.status.reason}")
    told = until(lambda: bare_jobs.cluster.kubectl(*asked), "the bomb is told of", seconds=60)
    assert told in {"Rejected", "InvalidSpec"}
    bare_jobs.cluster.kubectl("delete", "ftj", f"bomb-{depth}", "-n", bare_jobs.namespace)
