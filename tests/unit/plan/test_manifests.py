"""What a stage's objects carry besides what the golden files show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.plan.builders import NOON, SETTINGS, UID, a_job, a_template, prepared, trained
from tests.unit.plan.world import World

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt, Phase
from finetune_operator.plan.manifests.stages import stage_manifests
from finetune_operator.plan.model import names
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_trainer.contract import Device, ExitCode, RunConfig, Stage, Topology

LABEL = "finetune-operator.io/job"
ENFORCED: dict[str, Any] = {
    "spec": {"runtimeClassName": "gvisor", "containers": [{"name": "trainer", "image": "registry.example/trainer:1"}]}
}


def manifests(
    job: FineTuneJob, stage: Stage, settings: PlanSettings = SETTINGS, attempt: Attempt | None = None
) -> tuple[dict[str, Any], ...]:
    spec = resolve(job, a_template(), settings)
    return stage_manifests(job, spec, stage, attempt=attempt, prepared=prepared(), trained=trained())


def a_stage_job(
    stage: Stage = Stage.TRAIN, settings: PlanSettings = SETTINGS, attempt: Attempt | None = None, **spec: Any
) -> dict[str, Any]:
    return manifests(a_job(**spec), stage, settings, attempt)[-1]


def container(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["template"]["spec"]["containers"][0])


def run_config(job: dict[str, Any]) -> RunConfig:
    """As the trainer reads it from the annotation of its pod."""
    return RunConfig.model_validate_json(
        job["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_RUN_CONFIG]
    )


def test_a_pod_reads_its_run_config_from_an_annotation_of_its_own() -> None:
    job = a_stage_job(Stage.TRAIN)
    config = run_config(job)
    assert (config.stage, config.job.uid, config.prepared) == (Stage.TRAIN, UID, prepared())
    (volume,) = [volume for volume in job["spec"]["template"]["spec"]["volumes"] if volume["name"] == "config"]
    path = f"metadata.annotations['{names.ANNOTATION_RUN_CONFIG}']"
    assert volume["downwardAPI"] == {"items": [{"path": "run.json", "fieldRef": {"fieldPath": path}}]}
    (mount,) = [mount for mount in container(job)["volumeMounts"] if mount["name"] == "config"]
    environment = {variable["name"]: variable["value"] for variable in container(job)["env"]}
    assert environment["FINETUNE_RUN_CONFIG"] == f"{mount['mountPath']}/run.json"


def test_no_object_of_a_stage_is_a_config_map() -> None:
    kinds = [[manifest["kind"] for manifest in manifests(a_job(), stage)] for stage in Stage]
    assert kinds == [["PersistentVolumeClaim", "Job"], ["Service", "Job"], ["Job"]]


def test_a_training_job_and_its_pods_say_which_attempt_they_are() -> None:
    topology = Topology(nodes=1, processes_per_node=2, device=Device.CUDA)
    attempt = Attempt(number=7, start=NOON, topology=topology)
    job = a_stage_job(attempt=attempt)
    assert job["metadata"]["labels"][names.LABEL_ATTEMPT] == "7"
    assert job["spec"]["template"]["metadata"]["labels"][names.LABEL_ATTEMPT] == "7"
    assert (run_config(job).attempt, run_config(job).topology) == (7, topology)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (1, 1), (
        "an attempt may have a topology of its own"
    )


@pytest.mark.parametrize("stage", list(Stage))
def test_the_job_controller_replaces_ended_pods_only_and_leaves_restarts_to_the_operator(stage: Stage) -> None:
    spec = a_stage_job(stage)["spec"]
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["backoffLimit"] == (1_000_000 if stage is Stage.TRAIN else 3)
    assert spec.get("completionMode") == ("Indexed" if stage is Stage.TRAIN else None)
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["values"] == sorted(int(code) for code in ExitCode if code.is_final)
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_no_job_is_created_suspended_but_what_kueue_is_to_start() -> None:
    assert all("suspend" not in a_stage_job(stage)["spec"] for stage in Stage)
    queued = a_job(labels={names.LABEL_QUEUE: "team"})
    suspended = {stage: manifests(queued, stage)[-1]["spec"].get("suspend") for stage in Stage}
    assert suspended == {Stage.PREPARE: None, Stage.TRAIN: True, Stage.PUBLISH: True}


def test_a_pod_template_cannot_change_what_the_operator_needs() -> None:
    wanted = {
        "metadata": {"labels": {LABEL: "mine", "team": "a"}, "annotations": {names.ANNOTATION_RUN_CONFIG: "{}"}},
        "spec": {"restartPolicy": "OnFailure"},
    }
    template = a_stage_job(Stage.PREPARE, podTemplate=wanted)["spec"]["template"]
    assert template["metadata"]["labels"][LABEL] == "support-bot"
    assert template["metadata"]["labels"]["team"] == "a"
    assert json.loads(template["metadata"]["annotations"][names.ANNOTATION_RUN_CONFIG])["stage"] == "prepare"
    assert template["spec"]["restartPolicy"] == "Never"


def test_a_pod_template_cannot_take_the_operators_labels_away() -> None:
    template = a_stage_job(podTemplate={"metadata": {"labels": {LABEL: None, "mine": "x"}}})["spec"]["template"]
    assert template["metadata"]["labels"][LABEL] == "support-bot"
    assert template["metadata"]["labels"]["mine"] == "x"


def test_the_enforced_part_of_the_pod_template_wins_over_the_jobs() -> None:
    settings = SETTINGS.model_copy(update={"enforced_pod_template": ENFORCED})
    own = {"spec": {"runtimeClassName": "nvidia", "containers": [{"name": "trainer", "image": "mine"}]}}
    job = a_stage_job(settings=settings, podTemplate=own)
    assert job["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"
    assert container(job)["image"] == "registry.example/trainer:1"


def test_the_image_in_the_provenance_is_the_one_that_runs() -> None:
    settings = SETTINGS.model_copy(update={"enforced_pod_template": ENFORCED})
    world = World(settings=settings)
    world.reconcile()
    assert world.status.provenance is not None
    assert world.status.provenance.image == "registry.example/trainer:1"
    own = {"spec": {"containers": [{"name": "trainer", "image": "mine"}]}}
    world = World(a_job(podTemplate=own))
    world.reconcile()
    assert world.status.provenance is not None
    assert world.status.provenance.image == "mine"


def test_settings_that_change_alter_nothing_in_a_job_that_has_started() -> None:
    world = World().reach(Stage.PREPARE)
    before = world.jobs[Stage.PREPARE].manifest["spec"]["template"]["spec"]
    world.settings = SETTINGS.model_copy(
        update={
            "trainer_image": "trainer:2",
            "image_pull_policy": "Always",
            "run_as_user": 1000,
            "termination_grace_seconds": 600,
            "gpu_resource": "amd.com/gpu",
            "cpu_per_gpu": 1,
            "memory_per_gpu_gib": 1,
            "enforced_pod_template": ENFORCED,
            "pod_template": {"spec": {"nodeSelector": {"pool": "new"}}},
            "propagated_prefixes": ("team",),
            "operator_version": "9.9",
        }
    )
    world.finish(Stage.PREPARE)
    job = world.jobs[Stage.TRAIN].manifest
    after = job["spec"]["template"]["spec"]
    same = ("securityContext", "terminationGracePeriodSeconds", "runtimeClassName", "nodeSelector")
    assert {key: after.get(key) for key in same} == {key: before.get(key) for key in same}
    assert (container(job)["image"], container(job)["imagePullPolicy"]) == ("finetune-trainer:0.1.0", "IfNotPresent")
    assert container(job)["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"nvidia.com/gpu": 1},
    }
    assert world.status.provenance is not None
    assert world.status.provenance.operator_version == "0.1.0"


def test_labels_and_annotations_with_a_configured_prefix_pass_to_jobs_and_pods() -> None:
    settings = SETTINGS.model_copy(update={"propagated_prefixes": ("kueue.x-k8s.io/priority-class", "example.com/")})
    labels = {"kueue.x-k8s.io/priority-class": "high", "example.com/cost-centre": "7", "other": "x"}
    job = a_job(labels=labels)
    metadata = job.metadata.model_copy(update={"annotations": {"example.com/ticket": "42", "kubectl": "{}"}})
    made = manifests(job.model_copy(update={"metadata": metadata}), Stage.TRAIN, settings)[-1]
    for carrier in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert carrier["labels"]["kueue.x-k8s.io/priority-class"] == "high"
        assert carrier["labels"]["example.com/cost-centre"] == "7"
        assert "other" not in carrier["labels"]
        assert carrier["annotations"]["example.com/ticket"] == "42"
        assert "kubectl" not in carrier["annotations"]


def test_no_prefix_passes_nothing_on() -> None:
    settings = SETTINGS.model_copy(update={"propagated_prefixes": ()})
    made = manifests(a_job(labels={"a": "b"}), Stage.TRAIN, settings)[-1]
    assert "a" not in made["metadata"]["labels"]


def test_what_is_passed_on_cannot_replace_the_operators_own_labels() -> None:
    settings = SETTINGS.model_copy(update={"propagated_prefixes": ("finetune-operator.io/",)})
    made = manifests(a_job(labels={LABEL: "another", names.LABEL_ATTEMPT: "99"}), Stage.TRAIN, settings)[-1]
    for carrier in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert (carrier["labels"][LABEL], carrier["labels"][names.LABEL_ATTEMPT]) == ("support-bot", "1")


@pytest.mark.parametrize(
    ("spec", "stage", "resources"),
    [
        (
            {"gpus": 8, "gpusPerNode": 4},
            Stage.TRAIN,
            {"requests": {"cpu": "16", "memory": "64Gi"}, "limits": {"nvidia.com/gpu": 4}},
        ),
        ({}, Stage.PREPARE, {"requests": {"cpu": "500m", "memory": "1024Mi"}}),
        (
            {"gpus": 8, "gpusPerNode": 4},
            Stage.PUBLISH,
            {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"nvidia.com/gpu": 1}},
        ),
        ({"gpus": 0, "gpusPerNode": None}, Stage.TRAIN, {"requests": {"cpu": "250m", "memory": "1024Mi"}}),
        (
            {"gpus": 4, "gpusPerNode": 2, "training": {"device": "cpu"}},
            Stage.TRAIN,
            {"requests": {"cpu": "500m", "memory": "2048Mi"}},
        ),
        (
            {"gpus": 4, "gpusPerNode": 2, "training": {"device": "cpu"}},
            Stage.PUBLISH,
            {"requests": {"cpu": "250m", "memory": "1024Mi"}},
        ),
    ],
    ids=["training on gpus", "prepare", "publish on a gpu", "one cpu process", "cpu processes", "publish on cpu"],
)
def test_a_pod_asks_for_cpu_and_memory_that_go_with_what_it_computes_on(
    spec: dict[str, Any], stage: Stage, resources: dict[str, Any]
) -> None:
    assert container(a_stage_job(stage, **spec))["resources"] == resources


def test_requests_can_be_turned_off_and_are_the_jobs_to_override() -> None:
    off = {"cpu_per_gpu": 0, "memory_per_gpu_gib": 0, "prepare_cpu_millis": 0, "prepare_memory_mib": 0}
    settings = SETTINGS.model_copy(update=off)
    assert container(a_stage_job(settings=settings))["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert "resources" not in container(a_stage_job(Stage.PREPARE, settings))
    own = {"spec": {"containers": [{"name": "trainer", "resources": {"requests": {"cpu": "9"}}}]}}
    assert container(a_stage_job(podTemplate=own))["resources"]["requests"] == {"cpu": "9", "memory": "16Gi"}


def test_a_limit_of_the_job_is_its_request_as_everywhere_in_kubernetes() -> None:
    """A default request above the job's own limit would be refused."""
    own = {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "8Gi"}}}]}}
    assert container(a_stage_job(podTemplate=own))["resources"] == {
        "requests": {"cpu": "4"},
        "limits": {"nvidia.com/gpu": 1, "memory": "8Gi"},
    }


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({"spec": None}, ".spec"),
        ({"spec": {"containers": None}}, ".spec.containers"),
        ({"spec": {"containers": [{"name": "trainer", "resources": 7}]}}, ".spec.containers[0].resources"),
        (
            {"spec": {"containers": [{"name": "trainer", "resources": {"limits": [1]}}]}},
            ".spec.containers[0].resources.limits",
        ),
        ({"spec": {"containers": [{"image": "x"}]}}, ".spec.containers[0] needs a name"),
    ],
    ids=["spec", "containers", "resources", "limits", "name"],
)
def test_a_pod_template_that_is_no_pod_template_stalls_the_job_by_its_path(template: dict[str, Any], path: str) -> None:
    world = World(a_job(podTemplate=template))
    world.reconcile()
    assert world.status.reason == "InvalidSpec"
    assert f"spec.podTemplate{path}" in world.status.message


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"volumes": None}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [{"name": "trainer", "resources": None}]}},
        {"spec": {"containers": [{"name": "trainer", "resources": {"limits": None, "requests": None}}]}},
    ],
    ids=["volumes", "containers", "resources", "limits"],
)
def test_what_a_pod_template_takes_away_is_left_to_the_api_server(template: dict[str, Any]) -> None:
    world = World(a_job(podTemplate=template))
    world.reconcile()
    assert world.phase is Phase.PREPARING


def test_an_enforced_part_that_cannot_be_merged_stalls_the_job_instead_of_the_operator() -> None:
    enforced = {"spec": {"containers": [{"image": "x"}]}}
    world = World(settings=SETTINGS.model_copy(update={"enforced_pod_template": enforced}))
    world.reconcile()
    assert world.status.reason == "InvalidSpec"


def test_a_claim_with_the_only_result_has_no_owner_and_says_whose_it_is() -> None:
    claim = manifests(a_job(), Stage.PREPARE)[0]
    assert claim["metadata"]["name"] == f"support-bot-workspace-{UID[:8]}"
    assert "ownerReferences" not in claim["metadata"]
    assert claim["metadata"]["labels"][names.LABEL_JOB_UID] == UID


def test_a_claim_whose_result_is_elsewhere_goes_with_its_job() -> None:
    job = a_job(workspace={"size": "1Gi"}, output={"uri": "s3://team/out"})
    claim = manifests(job, Stage.PREPARE)[0]
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (claim["metadata"]["name"], owner["uid"], owner["controller"]) == ("support-bot-workspace", UID, True)
    assert names.LABEL_JOB_UID not in claim["metadata"]["labels"]


def test_children_carry_the_usual_labels() -> None:
    labels = a_stage_job(Stage.PUBLISH)["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "support-bot"
    assert labels["app.kubernetes.io/component"] == "publish"
    assert labels["app.kubernetes.io/part-of"] == "finetune-operator"


def test_samples_may_change_until_a_stage_starts() -> None:
    spec = resolve(a_job(), a_template(), SETTINGS)
    job = stage_manifests(a_job(samples={"prompts": ["Hello?"]}), spec, Stage.PREPARE)[-1]
    assert run_config(job).samples == ("Hello?",)


@pytest.mark.parametrize(("grace", "told"), [(300, "290"), (30, "20"), (5, "1")])
def test_the_trainer_is_told_the_grace_period_that_its_pod_has(grace: int, told: str) -> None:
    job = a_stage_job(podTemplate={"spec": {"terminationGracePeriodSeconds": grace}})
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace
    assert {"name": "FINETUNE_GRACE_SECONDS", "value": told} in container(job)["env"]


def test_a_label_that_is_passed_on_does_not_win_over_the_administrators() -> None:
    enforced = {"metadata": {"labels": {"cost/center": "platform"}}}
    settings = SETTINGS.model_copy(update={"enforced_pod_template": enforced, "propagated_prefixes": ("cost/",)})
    job = a_stage_job(settings=settings, labels={"cost/center": "mine"})
    assert job["spec"]["template"]["metadata"]["labels"]["cost/center"] == "platform"
