"""What the benchmarks take a pod for, and what they make of it."""

from benchmarks.kubelet import KILLED, Fate, Pod, _status, identify, trains
from benchmarks.operator.neighbour import NOISY, QUIET, fate

from finetune_operator.cluster.pods import pod_state
from finetune_operator.plan.model.observed import PodPhase


def test_a_pod_of_a_finetune_job_belongs_to_it_by_stage_and_rank() -> None:
    labels = {
        "finetune-operator.io/job": "bot",
        "finetune-operator.io/stage": "train",
        "batch.kubernetes.io/job-name": "bot-train",
        "batch.kubernetes.io/job-completion-index": "1",
    }
    assert identify({"namespace": "team", "labels": labels}) == Pod("team", "bot", "train", 1)


def test_a_pod_of_a_train_job_belongs_to_its_job_set_and_not_to_the_job_in_between() -> None:
    labels = {"jobset.sigs.k8s.io/jobset-name": "bot", "batch.kubernetes.io/job-name": "bot-node-0"}
    assert identify({"namespace": "team", "labels": labels}) == Pod("team", "bot", "train", 0)


def test_a_pod_without_a_job_is_nobodys() -> None:
    assert identify({"namespace": "team", "labels": {"app": "web"}}) is None
    assert identify({"namespace": "team"}) is None


def test_the_operator_takes_a_prepare_pod_for_done_and_reads_its_result() -> None:
    state = pod_state(_as_pod(trains(Pod("team", "bot", "prepare", 0))))
    assert state.phase is PodPhase.SUCCEEDED
    assert state.result is not None
    assert state.result.prepared is not None


def test_the_operator_takes_a_train_pod_for_running_and_a_crashed_one_for_killed() -> None:
    assert pod_state(_as_pod(trains(Pod("team", "bot", "train", 0)))).phase is PodPhase.RUNNING
    crashed = pod_state(_as_pod(Fate.CRASHES))
    assert crashed.phase is PodPhase.FAILED
    assert crashed.exit_code == KILLED


def test_only_training_in_the_noisy_namespace_crashes() -> None:
    assert fate(Pod(NOISY, "bot", "train", 0)) is Fate.CRASHES
    assert fate(Pod(NOISY, "bot", "prepare", 0)) is Fate.SUCCEEDS
    assert fate(Pod(QUIET, "bot", "train", 0)) is Fate.RUNS


def _as_pod(become: Fate) -> dict[str, object]:
    named = {"name": "some-pod", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": named, "status": _status(become, "trainer")}
