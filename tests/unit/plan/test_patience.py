"""Waiting: for pods that never all ran, after attempts without progress, and for pods that do not go."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.plan.builders import NOON, a_checkpoint, a_job, a_report, a_result
from tests.unit.plan.training import a_training, come_back
from tests.unit.plan.world import World

from finetune_operator.api.status import Phase
from finetune_operator.plan.model.observed import PodPhase, PodState
from finetune_operator.plan.policies.backoff import delay_seconds
from finetune_operator.plan.policies.dead_nodes import Draining, draining
from finetune_trainer.contract import ExitCode, Stage

UNSCHEDULABLE = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def a_training_with_one_pod_pending(**policy: int) -> World:
    """Rank 1 runs and waits for rank 0, which has no node."""
    world = World(a_job(runPolicy=policy))
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.control()
    pending = world.pod(Stage.TRAIN, 0).name
    world.cluster.change_pods(lambda pod: pod.state.name == pending, problem=UNSCHEDULABLE)
    world.run_pods()
    world.reconcile()
    return world


def fail_and_come_back(world: World, code: ExitCode = ExitCode.INTERNAL) -> None:
    world.end_pod(Stage.TRAIN, 0, code)
    world.settle()
    world.pass_time(300)
    come_back(world)


def test_what_a_gang_waits_for_is_told_in_the_schedulers_own_words() -> None:
    world = a_training_with_one_pod_pending()
    assert (world.phase, world.status.reason) == (Phase.QUEUED, "PodProblem")
    assert UNSCHEDULABLE in world.status.message
    assert world.status.message.endswith("1 of 2 run")


def test_words_that_change_only_in_their_numbers_are_no_new_event() -> None:
    world = a_training_with_one_pod_pending()
    world.change_pods(Stage.TRAIN, problem="Unschedulable: 0/7 nodes are available: 7 Insufficient nvidia.com/gpu.")
    assert world.reconcile().events == ()
    assert "0/7 nodes" in world.status.message
    assert world.events.count("PodProblem") == 1


def test_another_reason_why_the_nodes_do_not_do_is_shown_and_is_no_new_event() -> None:
    world = a_training_with_one_pod_pending()
    tainted = (
        "Unschedulable: 0/9 nodes are available: 2 node(s) had untolerated taint(s), 7 Insufficient nvidia.com/gpu."
    )
    world.change_pods(Stage.TRAIN, problem=tainted)
    assert world.reconcile().events == ()
    assert "untolerated" in world.status.message
    world.change_pods(Stage.TRAIN, problem='ErrImagePull: pull access denied for "no/such"')
    assert [event.reason for event in world.reconcile().events] == ["PodProblem"]


def test_a_quota_that_refuses_pod_after_pod_is_one_event_and_another_refusal_another() -> None:
    world = World()
    world.reconcile()
    job = world.jobs[Stage.PREPARE]
    for pod, again in (("x7k2p", ""), ("bbbbb", ""), ("m4xzq", "(combined from similar events): ")):
        job.not_created = (
            f'FailedCreate: {again}Error creating: pods "support-bot-prepare-{pod}" is forbidden: exceeded quota: none'
        )
        world.reconcile()
        assert pod in world.status.message
    assert world.events.count("PodProblem") == 1
    job.not_created = 'FailedCreate: Error creating: pods "support-bot-prepare-x7k2p" is forbidden: no host network'
    world.reconcile()
    assert world.events.count("PodProblem") == 2


@pytest.mark.parametrize("code", [ExitCode.PEER_LOST, ExitCode.INTERNAL])
def test_nothing_is_charged_before_all_pods_ran(code: ExitCode) -> None:
    world = a_training_with_one_pod_pending(maxRestarts=0)
    world.end_pod(Stage.TRAIN, 1, code)
    world.settle()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.QUEUED, 2, 0)
    assert "(peer-lost, not counted)" in world.told[-2] or "(internal, not counted)" in world.told[-2]


def test_a_gang_that_failed_before_anybody_saw_it_run_is_charged_when_every_rank_had_run() -> None:
    world = World()
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.control()
    world.run_pods()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempts[-1].counted, world.status.restarts) == (True, 1)


def test_a_user_error_ends_the_job_although_its_peers_never_ran() -> None:
    world = a_training_with_one_pod_pending()
    world.end_pod(Stage.TRAIN, 1, ExitCode.INVALID_CONFIG)
    world.reconcile()
    assert world.phase is Phase.FAILED


def test_the_wait_doubles_from_the_third_attempt_up_to_five_minutes() -> None:
    waits = [delay_seconds(tries) for tries in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1000)]
    assert waits == [0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_the_first_restart_is_at_once_and_the_second_waits() -> None:
    world = a_training(maxRestarts=9)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.settle(2)
    assert world.status.attempt == 2
    world.control()
    world.run_pods()
    world.reconcile()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL, "no room")
    ended = world.now
    decided = world.reconcile()
    assert "restart in 5s" in decided.status.message
    world.control()
    decided = world.reconcile()
    assert (decided.status.reason, decided.requeue_after, decided.actions) == ("BackingOff", 5, ())
    told = "2 attempts in a row ended without a new checkpoint or within a minute, the last one (internal) at"
    assert f"{told} {ended:%H:%M:%S} UTC" in decided.status.message
    assert "no room" in decided.status.message
    world.pass_time(4)
    assert world.plan().requeue_after == 1
    assert world.plan().actions == ()
    world.pass_time(1)
    world.reconcile()
    assert world.status.attempt == 3


def test_the_wait_is_computed_from_what_the_status_says_so_that_a_new_operator_waits_no_longer() -> None:
    world = a_training(maxRestarts=9)
    for _ in range(4):
        fail_and_come_back(world)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.control()
    world.pass_time(33)
    again = World(world.job, cluster=world.cluster)
    again.resolved = world.resolved
    assert again.plan().requeue_after == 40 - 33


def test_interruptions_without_progress_wait_too() -> None:
    world = a_training(maxRestarts=0)
    for _ in range(3):
        fail_and_come_back(world, ExitCode.INTERRUPTED)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
    world.reconcile()
    world.control()
    assert world.reconcile().requeue_after == 20
    assert (world.phase, world.status.restarts) == (Phase.QUEUED, 0)


def test_a_new_verified_checkpoint_ends_the_waiting() -> None:
    world = a_training(maxRestarts=9)
    for _ in range(3):
        fail_and_come_back(world)
    assert world.status.attempts[-2].tries == 3
    world.pass_time(60)
    world.progress = a_report(world.now, checkpoints=(a_checkpoint(40),))
    world.reconcile()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempts[-1].tries, world.status.attempts[-1].checkpoint_step) == (1, 40)
    world.control()
    world.reconcile()
    assert world.status.attempt == 5


def attempts_that_claim_progress(world: World, times: int, seconds: float) -> list[str]:
    """How the status tells of the end of each."""
    told = []
    for step in range(times):
        world.pass_time(seconds)
        world.progress = a_report(world.now, checkpoints=(a_checkpoint(10 * step),))
        world.reconcile()
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        told.append(world.reconcile().status.message.partition(" from the")[0])
        world.control()
        world.pass_time(5)
        world.settle()
        world.run_pods()
        world.reconcile()
    return told


def test_claims_of_progress_buy_no_restarts_without_a_pause() -> None:
    told = attempts_that_claim_progress(a_training(maxRestarts=1), 4, 1)
    assert ["in 5s" in message for message in told] == [False, True, True, True]


def test_after_progress_that_took_its_time_the_restart_is_at_once() -> None:
    told = attempts_that_claim_progress(a_training(maxRestarts=1), 3, 60)
    assert ["in 5s" in message for message in told] == [False] * 3


def test_an_attempt_that_a_suspension_cut_short_is_no_short_one() -> None:
    world = a_training(maxRestarts=1)
    world.set_policy(suspend=True)
    world.settle()
    world.set_policy(suspend=False)
    come_back(world)
    assert attempts_that_claim_progress(world, 1, 1) == ["attempt 2 ended, the pods restart"]


def test_a_rank_that_vanishes_is_a_free_restart_at_once() -> None:
    world = a_training(maxRestarts=0)
    world.pass_time(5)
    world.cluster.remove_pod(world.pod(Stage.TRAIN, 1).name)
    world.control()
    decided = world.reconcile()
    assert decided.after_status
    assert "rank 1 vanished" in world.status.message
    assert world.status.attempts[-1].reason == "interrupted"
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 0)


def test_a_rank_that_vanishes_before_all_pods_ran_is_replaced_without_a_restart() -> None:
    world = a_training_with_one_pod_pending()
    world.pass_time(5)
    world.cluster.remove_pod(world.pod(Stage.TRAIN, 0).name)
    world.control()
    assert world.reconcile().after_status == ()
    world.run_pods()
    world.reconcile()
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 1)


def test_a_pod_that_does_not_go_is_named_with_its_node_once_its_time_and_a_margin_are_over() -> None:
    world = a_training()
    name = world.pod(Stage.TRAIN, 1).name
    world.cluster.dead_nodes.add("node-1-0")
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.settle()
    decided = world.reconcile()
    assert world.status.reason == "Restarting"
    due = 120 + 30 - (world.now - world.removal_time).total_seconds() + 1
    assert decided.requeue_after == pytest.approx(due, abs=1)
    world.pass_time(decided.requeue_after or 0)
    world.reconcile()
    assert (world.status.reason, world.phase) == ("PodStuckTerminating", Phase.QUEUED)
    assert f"the pod {name} on the node node-1-0 should have gone" in world.status.message
    assert "kubectl delete node node-1-0" in world.status.message
    assert "node.kubernetes.io/out-of-service" in world.status.message
    assert world.events.count("PodStuckTerminating") == 1
    world.cluster.remove_nodes()
    come_back(world)
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 2)


def test_the_longest_overdue_of_several_stuck_pods_is_named_and_one_without_a_node_too() -> None:
    pods = [
        PodState(name, PodPhase.PENDING, NOON, gone_by=NOON + timedelta(seconds=late)) for late, name in enumerate("ab")
    ]
    assert draining(pods, NOON + timedelta(seconds=30)) == Draining(
        "the pod a without a node should have gone by 2026-03-01 12:00:00 UTC: the node may be down. The job goes on "
        "once the node answers, is removed (kubectl delete node NODE), or is marked as shut down (kubectl taint node "
        "NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute)",
        2,
    )
    both = draining(reversed(pods), NOON + timedelta(seconds=31))
    assert (both.message or "").startswith("the pod a without a node (and 1 more pod) should have gone by")
    assert both.recheck_after is None


def test_a_stuck_pod_changes_the_status_once_however_late_it_is() -> None:
    world = a_training()
    world.cluster.lose_node("node-1-0")
    world.pass_time(151)
    world.reconcile()
    status = world.status
    for _ in range(5):
        world.pass_time(1000)
        world.reconcile()
    assert world.status == status
    assert world.status.reason == "PodStuckTerminating"
    assert world.events.count("PodStuckTerminating") == 1


def test_the_peers_of_a_pod_on_a_dead_node_are_not_charged() -> None:
    world = a_training(maxRestarts=0)
    world.cluster.lose_node("node-1-0")
    world.pass_time(60)
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.reconcile()
    assert (world.phase, world.status.attempts[-1].reason) == (Phase.QUEUED, "interrupted")
    assert "DeletionByTaintManager" in world.status.message


def test_a_pod_that_another_container_keeps_running_is_named_with_what_to_do() -> None:
    world = World(a_job(gpus=1)).reach(Stage.TRAIN)
    ended = {"exit_code": 0, "finished": world.now, "result": a_result(Stage.TRAIN)}
    world.cluster.change_pods(lambda pod: pod.alive, **ended)
    recheck = world.reconcile().requeue_after
    assert world.status.reason == "Training", "the kubelet tells of the container before it tells of the pod"
    assert recheck is not None
    assert recheck <= 10
    world.pass_time(recheck)
    world.reconcile()
    assert world.status.reason == "PodProblem"
    name = world.pod(Stage.TRAIN, 0).name
    assert f"the container trainer of the pod {name} has ended well, but another one still runs" in world.status.message
    assert "restartPolicy: Always" in world.status.message
