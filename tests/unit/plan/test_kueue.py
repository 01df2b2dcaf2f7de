"""Kueue, or a person, suspends and resumes Jobs: the operator writes `suspend` only on a Job that it creates."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.cluster_model import Cluster
from tests.unit.plan.world import World

from finetune_operator.api.status import Phase
from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.plan import DeleteJob, DeletePods, QueueJob
from finetune_trainer.contract import ExitCode, Stage

QUEUE = {LABEL_QUEUE: "team"}


def a_queued_training(**policy: int) -> World:
    return World(a_job(labels=QUEUE, runPolicy=policy), cluster=Cluster(kueue=True)).reach(Stage.TRAIN)


def come_back(world: World) -> None:
    world.pass_time(1)
    world.settle()
    world.run_pods()
    world.reconcile()


def test_a_job_that_names_a_queue_waits_suspended_until_kueue_admits_it() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True))
    world.cluster.quota = False
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.settle()
    assert world.jobs[Stage.TRAIN].suspended
    assert (world.phase, world.status.reason) == (Phase.QUEUED, "Held")
    assert world.status.message.startswith("the Job support-bot-train waits in its Kueue queue ")
    assert "kubectl get workloads,localqueues -n team" in world.status.message
    assert (world.plan().actions, world.plan().after_status) == ((), ())
    world.cluster.quota = True
    come_back(world)
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 1)


def test_preparing_takes_no_gpu_and_no_place_in_the_queue() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True))
    world.reconcile()
    assert world.jobs[Stage.PREPARE].queue is None
    assert not world.jobs[Stage.PREPARE].suspended


def test_a_gang_restart_in_a_queue_deletes_the_pods_and_keeps_the_job_with_its_quota() -> None:
    world = a_queued_training()
    uid = world.jobs[Stage.TRAIN].uid
    names = tuple(pod.name for pod in world.pods(Stage.TRAIN))
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    assert world.plan().after_status == (DeletePods("support-bot-train", names),)
    world.reconcile()
    come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 2, 1)
    assert (world.jobs[Stage.TRAIN].uid, world.cluster.launches) == (uid, 1)
    assert {pod.name for pod in world.pods(Stage.TRAIN)}.isdisjoint(names)


def test_the_attempts_of_one_job_are_told_apart_again_and_again() -> None:
    world = a_queued_training(maxRestarts=9)
    for step in range(5):
        world.pass_time(5)
        world.progress = a_report(world.now, checkpoints=(a_checkpoint(step),))
        world.reconcile()
        world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
        world.reconcile()
        assert "the pods restart from" in world.status.message, "there is no wait"
        come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 6, 1)
    assert world.cluster.launches == 1


def test_a_queued_gang_that_keeps_ending_without_progress_gives_its_quota_back_while_it_waits() -> None:
    world = a_queued_training(maxRestarts=0)
    for attempt in range(1, 4):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
        come_back(world)
        assert (world.phase, world.status.attempt, world.cluster.launches) == (Phase.TRAINING, attempt + 1, 1)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
    world.reconcile()
    assert "the pods restart in 20s" in world.status.message
    world.control()
    assert Stage.TRAIN not in world.jobs
    decided = world.reconcile()
    assert (world.status.reason, decided.requeue_after) == ("BackingOff", 20)
    world.pass_time(20)
    come_back(world)
    assert (world.phase, world.status.attempt, world.cluster.launches) == (Phase.TRAINING, 5, 2)


def test_a_pod_that_was_replaced_before_the_restart_was_decided_goes_with_the_others() -> None:
    world = a_queued_training()
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.control()
    names = {pod.name for pod in world.pods(Stage.TRAIN)}
    (removal,) = world.plan().after_status
    assert isinstance(removal, DeletePods)
    assert (len(names), set(removal.pods)) == (3, names)


def test_a_new_pod_of_the_next_attempt_is_left_alone_while_the_old_ones_go() -> None:
    world = a_queued_training()
    world.cluster.dead_nodes.add("node-1-0")
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.pass_time(5)
    world.control()
    assert world.reconcile().after_status == ()
    assert world.status.attempt == 2
    world.pass_time(200)
    world.reconcile()
    assert world.status.reason == "PodStuckTerminating", "the pod of the attempt before keeps the rank's place"
    assert "node-1-0" in world.status.message


def test_an_attempt_of_a_job_that_goes_on_begins_with_its_pods_however_late_they_are_seen() -> None:
    world = a_queued_training()
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
    world.reconcile()
    world.pass_time(5)
    world.control()
    created = world.pod(Stage.TRAIN, 0).created
    world.run_pods()
    world.pass_time(600)
    world.reconcile()
    (_, second) = world.status.attempts
    assert second.running_since is not None
    assert created == second.start <= second.running_since


def test_a_gang_whose_pods_have_all_vanished_waits_for_no_more_than_its_new_pods() -> None:
    world = a_queued_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
    come_back(world)
    for rank in range(2):
        world.cluster.remove_pod(world.pod(Stage.TRAIN, rank).name)
    decided = world.reconcile()
    assert (world.status.attempts[-1].tries, decided.after_status) == (2, ())
    assert "the pods restart from" in world.status.message, "there is no wait"


def test_an_operator_that_died_before_it_deleted_the_pods_deletes_them_although_new_ones_are_there() -> None:
    world = a_queued_training()
    left = world.pod(Stage.TRAIN, 1).name
    world.cluster.remove_pod(world.pod(Stage.TRAIN, 0).name)
    world.reconcile(dies_after=1)
    assert world.status.attempts[-1].reason == "interrupted"
    world.pass_time(5)
    world.control()
    assert world.reconcile().after_status == (DeletePods("support-bot-train", (left,)),)
    come_back(world)
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 2)


def test_a_queued_job_in_which_a_rank_has_ended_well_is_deleted_since_it_would_not_come_back_whole() -> None:
    world = a_queued_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.OK)
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    assert [type(removal) for removal in world.plan().after_status] == [DeleteJob]


def test_a_job_that_kueue_preempts_goes_on_as_another_attempt_when_kueue_lets_it_and_nobody_is_charged() -> None:
    world = a_queued_training(maxRestarts=0)
    world.pass_time(30)
    world.cluster.quota = False
    world.cluster.preempt(world.jobs[Stage.TRAIN])
    world.cluster.control_jobs()
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.QUEUED, "Held")
    (attempt,) = world.status.attempts
    assert (attempt.reason, attempt.counted, attempt.gpu_seconds) == ("preempted", False, 60)
    assert world.removals == [], "Kueue takes its pods down"
    world.settle()
    assert "waits in its Kueue queue" in world.status.message
    assert world.status.attempt == 1
    world.cluster.quota = True
    come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 2, 0)
    assert world.cluster.launches == 1


def test_a_preemption_is_told_by_one_event() -> None:
    world = a_queued_training()
    world.cluster.quota = False
    world.cluster.preempt(world.jobs[Stage.TRAIN])
    world.cluster.control_jobs()
    assert [event.reason for event in world.reconcile().events] == ["Held"]
    assert (world.status.message, world.told[-2]) == (world.told[-1], "attempt 1 trains on 2 GPUs in 2 pods")


def test_a_preemption_that_is_seen_when_all_pods_are_gone_ends_the_attempt_too() -> None:
    world = a_queued_training()
    world.cluster.quota = False
    world.cluster.preempt(world.jobs[Stage.TRAIN])
    world.control()
    world.reconcile()
    assert world.status.attempts[-1].reason == "preempted"


def test_pods_that_are_seen_before_the_admission_of_their_job_are_not_taken_for_preempted() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True))
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.control()
    assert world.pods(Stage.TRAIN)
    world.reconcile(sees=("pods",))
    assert [attempt.is_over for attempt in world.status.attempts] == [False]


def test_suspending_a_queued_job_deletes_its_job_which_gives_the_quota_back() -> None:
    world = a_queued_training()
    uid = world.jobs[Stage.TRAIN].uid
    world.set_policy(suspend=True)
    assert world.reconcile().after_status == (DeleteJob("support-bot-train", uid),)
    world.settle()
    assert (world.phase, world.jobs.get(Stage.TRAIN)) == (Phase.SUSPENDED, None)
    world.set_policy(suspend=False)
    come_back(world)
    assert (world.phase, world.status.attempt, world.jobs[Stage.TRAIN].admitted) == (Phase.TRAINING, 2, True)


def test_a_job_that_waits_in_its_queue_is_deleted_when_it_fails_since_no_deadline_runs_for_it() -> None:
    world = World(a_job(labels=QUEUE, runPolicy={"activeDeadlineSeconds": 60}), cluster=Cluster(kueue=True))
    world.cluster.quota = False
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.settle()
    uid = world.jobs[Stage.TRAIN].uid
    world.pass_time(60)
    assert world.reconcile().after_status == (DeleteJob("support-bot-train", uid),)
    assert world.status.reason == "DeadlineExceeded"


def test_a_failed_job_that_kueue_runs_ends_by_its_own_deadline() -> None:
    world = a_queued_training(maxRestarts=0)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert world.phase is Phase.FAILED
    world.pass_time(2)
    world.settle()
    assert world.jobs[Stage.TRAIN].failure.startswith("DeadlineExceeded")
    assert not any(pod.alive for pod in world.cluster.pods)
    assert world.phase is Phase.FAILED


def test_a_failed_job_that_kueue_preempts_before_it_ended_is_deleted() -> None:
    world = a_queued_training(maxRestarts=0)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.cluster.quota = False
    world.cluster.preempt(world.jobs[Stage.TRAIN])
    world.settle()
    assert (world.phase, world.jobs.get(Stage.TRAIN)) == (Phase.FAILED, None)


def test_where_kueue_manages_every_job_what_it_holds_back_is_put_into_the_jobs_queue() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True, kueue_manages_all=True))
    world.reconcile()
    uid = world.jobs[Stage.PREPARE].uid
    decided = world.reconcile()
    assert decided.actions == (QueueJob("support-bot-prepare", uid, "team"),)
    assert world.status.reason == "Held"
    world.settle()
    assert world.jobs[Stage.PREPARE].admitted
    world.finish(Stage.PREPARE)
    assert world.phase is Phase.QUEUED


def test_a_persons_suspension_of_what_never_queues_is_not_answered_by_queueing_it() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True)).reach(Stage.PREPARE)
    world.jobs[Stage.PREPARE].suspended = True
    world.settle()
    assert (world.plan().actions, world.jobs[Stage.PREPARE].queue) == ((), None)
    assert world.status.reason == "Held"
    assert "set the Job's spec.suspend to false" in world.status.message
    world.jobs[Stage.PREPARE].suspended = False
    come_back(world)
    world.finish(Stage.PREPARE)
    assert world.phase is Phase.QUEUED


def test_what_kueue_suspends_later_is_queued_by_whoever_reads_the_status() -> None:
    world = World(a_job(labels=QUEUE), cluster=Cluster(kueue=True)).reach(Stage.PREPARE)
    world.cluster.kueue_manages_all = True
    world.settle()
    assert world.jobs[Stage.PREPARE].suspended
    assert "the label of the Job support-bot-prepare kueue.x-k8s.io/queue-name=team" in world.status.message


def test_where_kueue_manages_every_job_and_none_is_named_the_way_out_is_told() -> None:
    world = World(cluster=Cluster(kueue=True, kueue_manages_all=True))
    world.settle()
    assert (world.phase, world.status.reason) == (Phase.PREPARING, "Held")
    assert "kueue.x-k8s.io/queue-name" in world.status.message
    assert world.plan().actions == ()


@pytest.mark.parametrize("stage", list(Stage))
def test_a_suspension_by_a_person_is_respected_and_ends_when_the_person_says_so(stage: Stage) -> None:
    world = World(a_job(runPolicy={"maxRestarts": 0})).reach(stage)
    world.jobs[stage].suspended = True
    world.settle()
    assert (world.status.reason, world.jobs[stage].suspended) == ("Held", True)
    assert "set the Job's spec.suspend to false" in world.status.message
    world.jobs[stage].suspended = False
    come_back(world)
    world.finish(stage)
    assert (world.phase, world.status.restarts) == (
        {Stage.PREPARE: Phase.QUEUED, Stage.TRAIN: Phase.PUBLISHING, Stage.PUBLISH: Phase.SUCCEEDED}[stage],
        0,
    )
