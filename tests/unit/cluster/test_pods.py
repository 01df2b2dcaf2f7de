from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.cluster.pod_json import SCHEDULED, Json, condition, container, pod, terminated

from finetune_operator.cluster.pods import PodAddress, address, is_held_up, pod_state
from finetune_operator.plan.model.observed import PodPhase
from finetune_operator.runtime.kinds import trim_pod
from finetune_trainer.contract import ExitCode

RESULT = '{"stage":"train","exitCode":72,"message":"the loss is NaN at step 31","step":30}'


def test_a_running_pod_has_no_outcome() -> None:
    state = pod_state(pod("Running", container(running={"startedAt": "2026-01-01T00:00:10Z"})))
    assert (state.phase, state.index, state.outcome, state.problem) == (PodPhase.RUNNING, 1, None, None)
    assert state.created == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_result_is_read_from_the_termination_message() -> None:
    state = pod_state(pod("Failed", terminated(72, RESULT)))
    assert state.result is not None
    assert state.outcome is ExitCode.DIVERGED
    assert state.result.message == "the loss is NaN at step 31"
    assert state.last_words == ""
    assert state.finished == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("words", ["Traceback: ImportError: no torch", '{"not": "a result"}', '{"cut'])
def test_a_message_that_is_no_result_is_kept_as_last_words(words: str) -> None:
    state = pod_state(pod("Failed", terminated(1, f"{words}\n")))
    assert (state.result, state.last_words, state.exit_code, state.reason) == (None, words, 1, None)
    assert state.outcome is ExitCode.INTERNAL


def test_a_container_that_took_too_much_memory_was_killed() -> None:
    state = pod_state(pod("Failed", terminated(137, reason="OOMKilled")))
    assert (state.outcome, state.reason) == (ExitCode.KILLED, "OOMKilled")


def test_an_evicted_pod_was_disrupted_even_without_a_container_status() -> None:
    disruption = condition("DisruptionTarget", reason="EvictionByEvictionAPI", message="Eviction API: evicting")
    state = pod_state(pod("Failed", conditions=(disruption,)))
    assert state.disrupted
    assert (state.reason, state.exit_code, state.outcome) == ("EvictionByEvictionAPI", None, ExitCode.INTERRUPTED)


def test_a_pod_that_its_node_evicted_says_so() -> None:
    state = pod_state(pod("Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert (state.reason, state.disrupted) == ("Evicted", False)


def test_a_condition_that_is_false_is_no_disruption() -> None:
    assert not pod_state(pod("Running", conditions=(condition("DisruptionTarget", "False"),))).disrupted


def test_a_sidecar_says_nothing_of_the_trainer() -> None:
    sidecar = terminated(0) | {"name": "istio-proxy"}
    assert pod_state(pod("Running", sidecar, container(running={}))).exit_code is None


def test_a_pod_that_is_being_deleted_tells_its_node_and_when_it_should_be_gone() -> None:
    body = pod("Running", container(running={}))
    assert (pod_state(body).node, pod_state(body).gone_by, pod_state(body).deleting) == ("gpu-1", None, False)
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    state = pod_state(body)
    assert (state.gone_by, state.deleting) == (datetime(2026, 1, 1, 0, 2, tzinfo=UTC), True)


def test_a_pod_without_a_node_or_a_rank_has_none() -> None:
    body = pod("Pending")
    body["spec"], body["metadata"]["labels"] = {}, {}
    assert (pod_state(body).node, pod_state(body).index) == (None, 0)


def test_a_pod_tells_since_when_its_trainer_runs_or_ran() -> None:
    began = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    assert pod_state(pod("Running", container(running={"startedAt": "2026-01-01T00:00:10Z"}))).started == began
    assert pod_state(pod("Failed", terminated(1))).started == began
    lost = container(terminated={"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None})
    assert pod_state(pod("Failed", lost)).started == pod_state(pod("Pending")).created


RAN = [
    (pod("Running", container(running={"startedAt": "2026-01-01T00:00:10Z"})), True),
    (pod("Failed", terminated(1)), True),
    (pod("Succeeded", terminated(0)), True),
    (pod("Running", container(waiting={"reason": "x"}) | {"lastState": {"terminated": {"exitCode": 1}}}), True),
    (pod("Pending", container(waiting={"reason": "ContainerCreating"})), False),
    (pod("Pending"), False),
    (pod("Running", container("istio-proxy", running={}), container(waiting={"reason": "PodInitializing"})), False),
]


@pytest.mark.parametrize(("body", "ran"), RAN)
def test_a_pod_has_run_once_its_trainer_has(body: Json, *, ran: bool) -> None:
    assert pod_state(body).ran is ran


PROBLEMS = {
    "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.": pod(
        "Pending",
        conditions=(
            condition(
                "PodScheduled", "False", "Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            ),
        ),
    ),
    "ErrImagePull: pull access denied": pod(
        "Pending",
        container(waiting={"reason": "ErrImagePull", "message": "pull access denied"}),
        conditions=(SCHEDULED,),
    ),
    'CreateContainerConfigError: secret "creds" not found': pod(
        "Pending",
        container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "creds" not found'}),
        conditions=(SCHEDULED,),
    ),
    "ErrImageNeverPull: no such image": pod(
        "Pending",
        container(waiting={"reason": "PodInitializing"}),
        initContainerStatuses=[container("wait", waiting={"reason": "ErrImageNeverPull", "message": "no such image"})],
    ),
}


@pytest.mark.parametrize(("words", "body"), PROBLEMS.items())
def test_a_pod_that_does_not_start_says_why_in_kubernetes_own_words(words: str, body: Json) -> None:
    assert pod_state(body).problem == words


def test_a_pull_that_fails_and_the_wait_before_the_next_are_one_problem() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": ErrImagePull: pull access denied'}
    assert pod_state(pod("Pending", container(waiting=waiting))).problem == "ErrImagePull: pull access denied"


def test_a_pod_that_is_just_starting_has_no_problem_but_is_held_up() -> None:
    starting = pod("Pending", container(waiting={"reason": "ContainerCreating"}), conditions=(SCHEDULED,))
    assert pod_state(starting).problem is None
    assert is_held_up(starting)
    assert not is_held_up(pod("Pending"))
    assert not is_held_up({"metadata": starting["metadata"]})
    init = container("fetch", waiting={"reason": "CrashLoopBackOff"})
    assert not is_held_up(pod("Pending", conditions=(SCHEDULED,), initContainerStatuses=[init]))
    assert is_held_up(pod("Pending", container(waiting={}), conditions=(SCHEDULED,)))
    assert not is_held_up(pod("Running", container(running={}), conditions=(SCHEDULED,)))


def test_a_pod_whose_image_is_not_there_says_so_itself_and_its_events_are_not_asked_for() -> None:
    assert not is_held_up(pod("Pending", container(waiting={"reason": "ImagePullBackOff"}), conditions=(SCHEDULED,)))


def test_a_pod_of_which_the_api_server_says_nothing_yet_is_pending() -> None:
    body = pod("Pending")
    del body["status"]["phase"]
    assert pod_state(body).phase is PodPhase.PENDING
    assert pod_state(pod("Dreaming")).phase is PodPhase.UNKNOWN


def test_only_a_running_rank_0_has_an_address_to_ask() -> None:
    running = pod("Running", container(running={}), podIP="10.0.0.7")
    assert address(running) is None
    running["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = "0"
    assert address(running) == PodAddress("bot-train-1-x7k2p", "10.0.0.7")
    ended = pod("Failed", terminated(1), podIP="10.0.0.7")
    ended["metadata"]["labels"] = {}
    assert address(ended) is None


@pytest.mark.parametrize("body", [*PROBLEMS.values(), *(body for body, _ in RAN)])
def test_a_trimmed_pod_reads_as_the_whole_one(body: Json) -> None:
    assert pod_state(trim_pod(body)) == pod_state(body)
    assert trim_pod(body)["spec"] == {"nodeName": "gpu-1"}


def test_of_a_pods_labels_and_annotations_only_the_operators_own_labels_are_kept() -> None:
    body = pod("Running", container(running={}), conditions=(condition("Ready"), SCHEDULED))
    body["metadata"]["labels"]["team"] = "a"
    body["metadata"]["annotations"] = {"finetune-operator.io/run-config": "{}" * 1000}
    trimmed = trim_pod(body)
    assert "team" not in trimmed["metadata"]["labels"]
    assert "annotations" not in trimmed["metadata"]
    assert trimmed["status"]["conditions"] == [SCHEDULED]


@pytest.mark.parametrize("tokens", ["1" + "0" * 30, "-1"])
def test_a_result_with_numbers_that_no_status_can_hold_is_no_result(tokens: str) -> None:
    prepared = '{"format":"chat","rows":1,"trainRows":1,"evalRows":0,"digest":"d","tokens":' + tokens + "}"
    words = '{"stage":"prepare","exitCode":0,"message":"done","prepared":' + prepared + "}"
    state = pod_state(pod("Succeeded", container(terminated={"exitCode": 0, "message": words})))
    assert state.result is None
    assert state.last_words == words


@pytest.mark.parametrize(("size", "kept"), [(2**53, True), (2**53 + 1, False)])
def test_numbers_of_each_checkpoint_of_a_result_are_looked_at(size: int, kept: bool) -> None:  # noqa: FBT001 - drawn
    checkpoint = '{"step":7,"uri":"s3://b/c","verified":true,"bytes":' + str(size) + "}"
    words = '{"stage":"train","exitCode":75,"message":"interrupted","checkpoints":[' + checkpoint + "]}"
    state = pod_state(pod("Failed", container(terminated={"exitCode": 75, "message": words})))
    assert (state.result is not None) is kept
