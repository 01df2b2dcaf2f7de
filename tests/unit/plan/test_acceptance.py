"""Nothing is started before everything that the job names is there, and what is missing is told with advice."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import NOON, a_job, a_template
from tests.unit.plan.world import World

from finetune_operator.api.status import MAX_MESSAGE, ConditionType, Phase
from finetune_operator.plan.model.observed import Presence
from finetune_operator.plan.model.plan import Fault, NameTaken, Plan, Refusal
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import stalled
from finetune_trainer.contract import ExitCode, Stage


def assert_waits(world: World, reason: str, *words: str) -> None:
    decided = world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.PENDING, reason)
    assert world.holds(ConditionType.STALLED)
    assert not world.holds(ConditionType.READY)
    assert decided.actions == ()
    assert decided.requeue_after == 30
    for word in words:
        assert word in world.status.message
    assert [event.type.value for event in decided.events] == ["Warning"]
    assert world.reconcile().events == (), "it is told once"


def assert_starts(world: World) -> None:
    world.reconcile()
    assert world.phase is Phase.PREPARING
    assert not world.holds(ConditionType.STALLED)


def test_a_missing_template_is_named_and_the_job_starts_once_it_is_there() -> None:
    world = World()
    world.template = None
    assert_waits(
        world,
        "TemplateNotFound",
        "spec.template.name: there is no template `lora`, neither in the namespace team nor in the cluster. "
        "`kubectl get ftt,cftt -n team` lists those that there are; the job starts by itself once the template is "
        "created",
    )
    world.template = a_template()
    assert_starts(world)


@pytest.mark.parametrize(
    ("kind", "listed"),
    [("ClusterFineTuneTemplate", "kubectl get cftt"), ("FineTuneTemplate", "kubectl get ftt -n team")],
)
def test_a_template_of_one_kind_is_looked_for_in_one_place(kind: str, listed: str) -> None:
    world = World(a_job(template={"name": "lora", "kind": kind}))
    world.template = None
    assert_waits(world, "TemplateNotFound", f"`{listed}`")


def test_a_missing_secret_is_named_with_its_field_and_its_namespace() -> None:
    dataset = {"uri": "s3://team/support.jsonl", "secretRef": {"name": "bucket"}}
    world = World(a_job(datasets=[dataset]))
    world.secrets = {"bucket": Presence.MISSING}
    assert_waits(world, "SecretNotFound", "spec.datasets[0].secretRef.name", "`bucket`", "namespace team")
    world.secrets = {"bucket": Presence.PRESENT}
    assert_starts(world)


def test_where_the_operator_may_not_read_secrets_the_pod_that_cannot_mount_one_tells() -> None:
    world = World(a_job(model={"uri": "hf://meta-llama/Llama-3.1-8B", "secretRef": {"name": "hub"}}))
    world.secrets = {"hub": Presence.UNREADABLE}
    assert_starts(world)


def test_a_missing_claim_is_named_with_its_field() -> None:
    world = World(a_job(workspace={"claim": "shared"}))
    world.claims = {"shared": Presence.MISSING}
    told = "spec.workspace.claim: there is no PersistentVolumeClaim `shared` in the namespace team"
    assert_waits(world, "ClaimNotFound", told)
    world.claims = {"shared": Presence.PRESENT}
    assert_starts(world)


def test_a_result_without_a_home_is_refused_with_every_way_out() -> None:
    world = World(settings=PlanSettings())
    assert_waits(world, "NoOutput", "spec.output.uri", "spec.workspace.size", "spec.workspace.claim")


def test_cuda_without_gpus_is_refused() -> None:
    world = World(a_job(gpus=0, gpusPerNode=None, training={"device": "cuda"}))
    assert_waits(world, "InvalidSpec", "spec.training.device")


def test_a_job_that_has_started_no_longer_needs_its_template() -> None:
    world = World().reach(Stage.TRAIN)
    world.template = None
    world.reconcile()
    assert world.phase is Phase.TRAINING


def test_a_change_that_can_no_longer_take_effect_is_told_once() -> None:
    world = World().reach(Stage.TRAIN)
    world.edit(gpus=4)
    assert [event.reason.value for event in world.reconcile().events] == ["SpecChangeIgnored"]
    assert world.reconcile().events == ()


def test_a_change_that_cannot_be_compared_without_the_template_is_not_told() -> None:
    world = World().reach(Stage.TRAIN)
    world.template = None
    world.edit(gpus=4)
    assert world.reconcile().events == ()
    assert world.phase is Phase.TRAINING


def test_a_change_before_the_first_status_is_told_too() -> None:
    world = World()
    world.reconcile()
    world.job = world.job.model_copy(update={"status": None})
    assert "SpecChangeIgnored" not in [event.reason.value for event in world.plan().events]
    world.edit(gpus=4)
    assert "SpecChangeIgnored" in [event.reason.value for event in world.plan().events]


def test_a_change_to_a_spec_that_cannot_be_is_told_too() -> None:
    world = World().reach(Stage.TRAIN)
    world.edit(gpus=0, training=world.job.spec.training.model_copy(update={"device": "cuda"}))
    (event,) = world.reconcile().events
    assert event.message == (
        "the spec or its template has changed since the job started; it goes on with what it started with. Apply the "
        "change as a new FineTuneJob"
    )
    assert world.phase is Phase.TRAINING


def test_a_change_of_the_run_policy_is_no_change_of_the_spec() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(max_restarts=7)
    assert world.reconcile().events == ()


def test_a_template_that_has_changed_is_told_with_the_next_generation_of_the_job() -> None:
    world = World().reach(Stage.TRAIN)
    world.template = a_template(training={"method": "full"})
    assert world.reconcile().events == ()
    world.set_policy(max_restarts=7)
    assert [event.reason.value for event in world.reconcile().events] == ["SpecChangeIgnored"]


def refused(world: World, refusal: Refusal) -> Plan:
    """What is shown when the API server refuses what the job needs now."""
    return stalled(world.observed(), refusal, world.now)


def test_a_quota_that_refuses_a_stage_is_told_in_the_servers_words_and_tried_again() -> None:
    world = World()
    words = 'jobs.batch "support-bot-prepare" is forbidden: exceeded quota: team, used: 10'
    shown = refused(world, Refusal(403, "Forbidden", words))
    assert (shown.status.phase, shown.status.reason) == (Phase.PENDING, "Rejected")
    assert words in shown.status.message
    assert "Free some quota" in shown.status.message
    assert (shown.actions, shown.after_status, shown.requeue_after) == ((), (), 30)
    assert shown.status.start_time is None


@pytest.mark.parametrize(
    "words",
    [
        'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Required value',
        'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal string, Kind=Job',
    ],
)
def test_a_pod_template_that_is_no_pod_is_the_specs_fault(words: str) -> None:
    shown = refused(World(), Refusal(422, "Invalid", words))
    assert shown.status.reason == "InvalidSpec"
    assert "Correct podTemplate" in shown.status.message


def test_an_object_that_is_invalid_elsewhere_asks_for_the_field() -> None:
    shown = refused(World(), Refusal(422, "Invalid", "spec.resources.requests.storage: Invalid value"))
    assert shown.status.reason == "Rejected"
    assert "Correct the field that it names" in shown.status.message


def test_a_refusal_that_comes_again_changes_nothing() -> None:
    world = World()
    refusal = Refusal(403, "Forbidden", "exceeded quota")
    first = refused(world, refusal)
    world.job = world.job.model_copy(update={"status": first.status})
    world.sync()
    world.pass_time(30)
    second = refused(world, refusal)
    assert second.status == first.status
    assert second.events == ()


def test_a_refusal_whose_numbers_change_is_no_new_event() -> None:
    world = World()
    world.refusal = Refusal(403, "Forbidden", "exceeded quota: used 10")
    world.reconcile()
    world.refusal = Refusal(403, "Forbidden", "exceeded quota: used 11")
    world.reconcile()
    assert "used 11" in world.status.message
    assert world.events == ["Rejected"]


def test_a_refusal_in_the_middle_of_a_job_keeps_what_is_reached() -> None:
    world = World().reach(Stage.PREPARE)
    world.end_pod(Stage.PREPARE, 0, ExitCode.OK)
    world.refusal = Refusal(403, "Forbidden", "exceeded quota")
    world.reconcile()
    assert world.phase is Phase.PREPARING
    assert world.status.dataset is not None
    assert world.events[-2:] == ["Prepared", "Rejected"]
    assert "in stage prepare" in world.status.message
    world.refusal = None
    world.reconcile()
    assert (world.phase, world.holds(ConditionType.STALLED)) == (Phase.QUEUED, False)


def test_a_name_that_somebody_else_has_taken_stalls_the_job_and_is_named_with_its_owner() -> None:
    world = World()
    world.take_name(Stage.PREPARE)
    decided = world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.PENDING, "NameTaken")
    assert "the Job support-bot-prepare, which belongs to FineTuneJob support-bot, uid somebody" in world.status.message
    assert "nothing is taken over" in world.status.message
    assert world.holds(ConditionType.STALLED)
    assert not decided.after_status
    assert [job.owner for job in world.cluster.jobs] == ["somebody"]
    world.give_names_back()
    assert_starts(world)


def test_an_object_of_an_earlier_job_that_is_going_is_waited_for_and_is_no_failure() -> None:
    taken = NameTaken("PersistentVolumeClaim", "support-bot-workspace", "FineTuneJob support-bot, uid 1", is_going=True)
    shown = stalled(World().observed(), taken, NOON)
    assert (shown.status.phase, shown.status.reason, shown.requeue_after) == (Phase.PENDING, "PredecessorGoing", 2)
    assert "the PersistentVolumeClaim support-bot-workspace (FineTuneJob support-bot, uid 1) has to go first" in (
        shown.status.message
    )
    held = {condition.type: condition.status.value for condition in shown.status.conditions}
    assert (held[ConditionType.STALLED], held[ConditionType.RECONCILING], held[ConditionType.READY]) == (
        *("False", "True"),
        "True",
    )


def test_what_goes_wrong_again_and_again_is_told_with_how_often() -> None:
    shown = stalled(World().observed(), Fault(5, "webhook.example: connection refused."), NOON)
    assert (shown.status.reason, shown.requeue_after) == ("OperatorFault", 30)
    assert shown.status.message.startswith("failed 5 times in a row: webhook.example: connection refused. It is tried")
    assert [event.reason.value for event in shown.events] == ["OperatorFault"]


def test_a_fault_of_any_length_fits_the_status() -> None:
    shown = stalled(World().observed(), Fault(5, "é" * 9000), NOON)
    assert len(shown.status.message.encode()) <= MAX_MESSAGE


@pytest.mark.parametrize("pod_template", [{"spec": None}, {"metadata": None}, {"spec": {"containers": None}}])
def test_a_pod_template_without_a_pod_is_told_to_its_author(pod_template: dict[str, Any]) -> None:
    assert_waits(World(a_job(podTemplate=pod_template)), "InvalidSpec", "spec.podTemplate.")


def test_a_pod_template_of_a_template_names_the_template() -> None:
    world = World()
    world.template = a_template(podTemplate={"spec": {"containers": "trainer"}})
    assert_waits(world, "InvalidSpec", "ClusterFineTuneTemplate lora: spec.podTemplate.spec.containers must be a list")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"finalizers": ["x/y"]}, "spec.podTemplate.metadata.finalizers is not passed on"),
        ({"annotations": {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}}, "is obsolete"),
    ],
)
def test_what_would_keep_or_unconfine_a_pod_by_its_metadata_is_refused(metadata: dict[str, Any], words: str) -> None:
    assert_waits(World(a_job(podTemplate={"metadata": metadata})), "InvalidSpec", words)


def test_what_is_missing_for_long_is_looked_for_less_often() -> None:
    world = World()
    world.template = None
    assert world.reconcile().requeue_after == 30
    world.pass_time(1000)
    assert world.reconcile().requeue_after == 100
    world.pass_time(100_000)
    assert world.reconcile().requeue_after == 300


@pytest.mark.parametrize(
    "words",
    [
        'Job in version "v1" cannot be handled as a Job: quantities must match the regular expression',
        'Job in version "v1" cannot be handled as a Job: strict decoding error: unknown field "spec.template.x"',
    ],
)
def test_a_pod_template_that_is_no_job_to_the_api_server_is_the_specs_fault(words: str) -> None:
    shown = stalled(World().observed(), Refusal(400, "BadRequest", words), NOON).status
    assert shown.reason == "InvalidSpec"
    assert "Correct podTemplate" in shown.message
