"""What a job costs the API server: nothing while nothing happens, and little while something is the matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cluster.support.fake_node import TOLERATION, FakeNode, fake_node
from tests.cluster.support.fakes import HOLD, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, merged
from tests.cluster.support.kueue import SuspendWatch
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import pause, until
from tests.cluster.support.watching import versions
from tests.cluster.test_gangs import gang, spread, until_training

GANG = 16
REMEMBERED_SECONDS = 15
WATCHED_BY = "app.kubernetes.io/managed-by"
PREPARED = {
    "stage": "prepare",
    "exitCode": 0,
    "message": "played",
    "prepared": {"format": "text", "rows": 2, "trainRows": 2, "evalRows": 0, "digest": "0" * 64},
}


@pytest.fixture
def node(bare_jobs: Jobs) -> Iterator[FakeNode]:
    with fake_node(bare_jobs.cluster, bare_jobs.namespace) as node:
        yield node


def only_on(node: FakeNode, manifest: Manifest) -> Manifest:
    """All pods of the job on this node."""
    where = {"tolerations": [TOLERATION], "nodeSelector": {"kubernetes.io/hostname": node.name}}
    return merged(manifest, {"spec": {"podTemplate": {"spec": where}}})


def event_lists(jobs: Jobs) -> int:
    """How often events were listed, by anybody."""
    counts = jobs.cluster.apiserver_request_counts()
    return sum(count for request, count in counts.items() if (request.resource, request.verb) == ("events", "LIST"))


def test_a_gang_that_pulls_its_image_for_a_long_time_asks_for_few_events(bare_jobs: Jobs, node: FakeNode) -> None:
    manifest = fake("pulling", gpus=GANG, gpusPerNode=1, workspace=None, output={"uri": "s3://bucket/out"})
    bare_jobs.apply(only_on(node, manifest))
    (prepare,) = until(lambda: scheduled(bare_jobs, "prepare", 1), "prepare has a node", seconds=30)
    node.finish(prepare, PREPARED)
    until(
        lambda: scheduled(bare_jobs, "train", GANG),
        "all ranks have a node",
        seconds=60,
        story=lambda: bare_jobs.story("pulling"),
    )
    pause(5)
    before = event_lists(bare_jobs)
    pause(2 * REMEMBERED_SECONDS)
    assert 1 <= event_lists(bare_jobs) - before <= GANG, "one pod is asked about, and not each twice"


def scheduled(jobs: Jobs, stage: str, count: int) -> list[Manifest] | None:
    pods = [pod for pod in jobs.pods("pulling", stage) if pod["spec"].get("nodeName")]
    return pods if len(pods) == count else None


def test_a_schedulers_words_that_change_are_shown_and_make_no_new_event(bare_jobs: Jobs) -> None:
    manifest = spread(gang("pending", workspace=None, output={"uri": "s3://bucket/out"}))
    manifest["spec"]["podTemplate"]["spec"]["tolerations"] = []
    bare_jobs.apply(manifest)
    shown(bare_jobs, "0/1 nodes are available")
    with ExitStack() as nodes:
        for number in (2, 3, 4):
            nodes.enter_context(fake_node(bare_jobs.cluster, f"{bare_jobs.namespace}-{number}"))
            shown(bare_jobs, f"0/{number} nodes are available")
    told = [event for event in bare_jobs.events("pending") if event["reason"] == "PodProblem"]
    assert sum(event.get("count") or 1 for event in told) == 1, told


def shown(jobs: Jobs, words: str) -> None:
    until(
        lambda: words in jobs.status("pending").get("message", ""),
        f"the status says {words}",
        seconds=60,
        story=lambda: jobs.story("pending"),
    )


def test_a_result_that_came_while_the_operator_was_down_is_not_had_again(
    bare_jobs: Jobs, operator: OperatorProcess
) -> None:
    bare_jobs.apply(fake("finished", {"train": HOLD}))
    (pod,) = running(bare_jobs, "finished", "train")
    operator.kill()
    try:
        end(bare_jobs, pod)
        complete(bare_jobs, "finished-train")
    finally:
        operator.start()
    done_once(bare_jobs, "finished")


def test_a_result_in_a_pod_that_the_watch_has_lost_is_read_live(bare_jobs: Jobs) -> None:
    bare_jobs.apply(fake("unseen", {"train": HOLD}))
    until_training(bare_jobs, "unseen", attempt=1)
    (pod,) = running(bare_jobs, "unseen", "train")
    name = pod["metadata"]["name"]
    bare_jobs.cluster.kubectl("label", "pod", name, "-n", bare_jobs.namespace, f"{WATCHED_BY}-")
    pause(2)
    end(bare_jobs, pod)
    done_once(bare_jobs, "unseen")


def complete(jobs: Jobs, name: str) -> None:
    jobs.cluster.kubectl("wait", f"job/{name}", "-n", jobs.namespace, "--for=condition=Complete", "--timeout=60s")


def done_once(jobs: Jobs, name: str) -> None:
    """The job succeeds, and has trained once."""
    before = jobs.cluster.get("job", f"{name}-train", jobs.namespace)["metadata"]["uid"]
    status = jobs.until_phase(name, "Succeeded", seconds=60)
    assert len(status["attempts"]) == 1
    assert status.get("restarts", 0) == 0
    assert jobs.cluster.get("job", f"{name}-train", jobs.namespace)["metadata"]["uid"] == before


def test_a_job_that_somebody_else_suspends_stays_so_until_he_resumes_it(bare_jobs: Jobs, tmp_path: Path) -> None:
    bare_jobs.apply(fake("held", {"train": HOLD}))
    until_training(bare_jobs, "held", attempt=1)
    with SuspendWatch(bare_jobs.cluster, bare_jobs.namespace, tmp_path / "suspend") as watch:
        until(lambda: watch.of("held-train"), "the watch has begun", seconds=30)
        suspend(bare_jobs, "held-train", "true")
        until(
            lambda: is_held(bare_jobs.status("held")) and not bare_jobs.pods("held", "train"),
            "the status says that somebody holds the Job, and its pods are gone",
            seconds=30,
            story=lambda: bare_jobs.story("held"),
        )
        with (
            versions(bare_jobs.cluster, "jobs", bare_jobs.namespace, tmp_path / "jobs") as of_jobs,
            versions(bare_jobs.cluster, "ftj", bare_jobs.namespace, tmp_path / "ftj") as of_ours,
        ):
            pause(6)
            assert of_jobs.writes("held-train") <= 1, "the Job controller's last word"
            assert of_ours.writes("held") <= 1
        suspend(bare_jobs, "held-train", "false")
        status = until_training(bare_jobs, "held", attempt=2)
        held, *later = watch.of("held-train")
        assert held == [False, True, False], "what the other did, and nothing else"
        assert later in ([], [[False]]), "it goes on in that Job, or the next attempt in one of its own"
    assert status.get("restarts", 0) == 0
    (pod,) = running(bare_jobs, "held", "train")
    end(bare_jobs, pod)
    bare_jobs.until_phase("held", "Succeeded", seconds=60)


def is_held(status: Manifest) -> bool:
    return status["reason"] == "Held" and "held-train" in status["message"]


def suspend(jobs: Jobs, name: str, value: str) -> None:
    patch = f'{{"spec": {{"suspend": {value}}}}}'
    jobs.cluster.kubectl("patch", "job", name, "-n", jobs.namespace, "--type=merge", "-p", patch)
