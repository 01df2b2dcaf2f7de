"""Nothing is started before everything that the job names is there, and what is missing is told with advice."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import a_job, a_template
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.observed import Presence
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import Rejection, rejected
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
    assert_waits(world, "TemplateNotFound", "`lora`", "kubectl get ftt,cftt -n team")
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


def test_a_secret_that_may_not_be_looked_for_is_taken_to_be_there() -> None:
    world = World(a_job(model={"uri": "hf://meta-llama/Llama-3.1-8B", "secretRef": {"name": "hub"}}))
    world.secrets = {"hub": Presence.UNREADABLE}
    assert_starts(world)


@pytest.mark.parametrize("pod_template", [{"spec": None}, {"metadata": None}, {"spec": {"containers": None}}])
def test_a_pod_template_without_a_pod_is_told_to_its_author(pod_template: dict[str, Any]) -> None:
    assert_waits(World(a_job(podTemplate=pod_template)), "InvalidSpec", "spec.podTemplate.")


def test_a_pod_template_of_a_template_names_the_template() -> None:
    world = World()
    world.template = a_template(podTemplate={"spec": {"containers": "trainer"}})
    assert_waits(world, "InvalidSpec", "ClusterFineTuneTemplate lora: spec.podTemplate.spec.containers must be a list")


def test_a_missing_claim_is_named_with_its_field() -> None:
    world = World(a_job(workspace={"claim": "shared"}))
    world.claims = {"shared": Presence.MISSING}
    assert_waits(world, "ClaimNotFound", "spec.workspace.claim", "`shared`")
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


def test_a_change_of_the_run_policy_is_no_change_of_the_spec() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(max_restarts=7)
    assert world.reconcile().events == ()


def test_a_quota_that_refuses_a_stage_is_told_in_the_servers_words_and_tried_again() -> None:
    world = World()
    decided = world.plan()
    words = 'jobs.batch "support-bot-prepare" is forbidden: exceeded quota: team, used: 10'
    shown = rejected(world.observed(), decided, Rejection(403, "Forbidden", words), world.now)
    assert (shown.status.phase, shown.status.reason) == (Phase.PENDING, "Rejected")
    assert words in shown.status.message
    assert (shown.actions, shown.requeue_after) == ((), 30)
    assert shown.status.start_time is None


def test_a_pod_template_that_is_no_pod_is_the_specs_fault() -> None:
    world = World()
    words = 'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Required value'
    shown = rejected(world.observed(), world.plan(), Rejection(422, "Invalid", words), world.now)
    assert shown.status.reason == "InvalidSpec"
    assert "podTemplate" in shown.status.message


def test_a_refusal_that_comes_again_changes_nothing() -> None:
    world = World()
    rejection = Rejection(403, "Forbidden", "exceeded quota")
    first = rejected(world.observed(), world.plan(), rejection, world.now)
    world.job = world.job.model_copy(update={"status": first.status})
    world.pass_time(30)
    second = rejected(world.observed(), world.plan(), rejection, world.now)
    assert second.status == first.status
    assert second.events == ()


def test_a_refusal_in_the_middle_of_a_job_keeps_what_is_reached() -> None:
    world = World().reach(Stage.PREPARE)
    world.end_pod(Stage.PREPARE, 0, ExitCode.OK)
    shown = rejected(world.observed(), world.plan(), Rejection(403, "Forbidden", "exceeded quota"), world.now)
    assert shown.status.phase is Phase.PREPARING
    assert shown.status.dataset is not None
    assert [event.reason.value for event in shown.events] == ["Prepared", "Rejected"]
