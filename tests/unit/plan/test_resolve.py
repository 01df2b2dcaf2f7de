"""A job and its template become one spec, with every default filled in."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import SETTINGS, UID, a_job, a_template

from finetune_operator.api.status import Reason
from finetune_operator.plan.manifests.stages import parse_resolved, resolved_config_map
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import claim_names, resolve, secret_names
from finetune_operator.plan.resolve.sources import secret_fields
from finetune_trainer.contract import CheckpointPolicy, DataFormat, DatasetSource, Device, ModelSource, Topology


def resolved(settings: PlanSettings = SETTINGS, template: dict[str, Any] | None = None, **spec: Any) -> ResolvedSpec:
    return resolve(a_job(**spec), a_template(**(template or {})), settings)


def test_the_jobs_values_win_over_the_templates() -> None:
    template = {
        "training": {"method": "qlora", "maxSequenceLength": 512, "peftConfig": {"r": 8, "lora_alpha": 16}},
        "data": {"validationFraction": 0.2, "invalidTolerancePercent": 1},
    }
    spec = resolved(template=template, training={"peftConfig": {"r": 32}}, data={"validationFraction": 0})
    assert spec.training.method == "qlora"
    assert spec.training.max_sequence_length == 512
    assert spec.training.peft_config == {"r": 32, "lora_alpha": 16}
    assert (spec.data.validation_fraction, spec.data.invalid_tolerance_percent) == (0, 1)


def test_everything_that_a_job_says_of_its_model_its_data_and_its_checkpoints_reaches_its_pods() -> None:
    creds = "creds"
    said = {"revision": "main", "secretRef": {"name": creds}}
    spec = resolved(
        model={"uri": "hf://a/b", "trustRemoteCode": True, **said},
        datasets=[{"uri": "hf://a/d", "format": "chat", "columns": {"messages": "turns"}, "split": "test", **said}],
        checkpoints={"every": 7, "keep": 4, "uri": "s3://team/kept/", "secretRef": {"name": creds}},
    )
    assert spec.model == ModelSource(uri="hf://a/b", revision="main", trust_remote_code=True, secret=creds)
    assert list(spec.datasets) == [
        DatasetSource(
            uri="hf://a/d",
            revision="main",
            format=DataFormat.CHAT,
            columns={"messages": "turns"},
            split="test",
            secret=creds,
        )
    ]
    assert spec.checkpoints == CheckpointPolicy(
        every_steps=7, keep=4, uri=f"s3://team/kept/support-bot-{UID[:8]}", secret=creds
    )


def test_null_in_a_block_takes_the_templates_value_away() -> None:
    assert resolved(training={"peftConfig": {"target_modules": None}}).training.peft_config == {"r": 16}


@pytest.mark.parametrize(
    ("spec", "topology"),
    [
        ({"gpus": 0}, Topology(nodes=1, processes_per_node=1, device=Device.CPU)),
        ({"gpus": 4}, Topology(nodes=1, processes_per_node=4, device=Device.CUDA)),
        ({"gpus": 16}, Topology(nodes=2, processes_per_node=8, device=Device.CUDA)),
        ({"gpus": 8, "gpusPerNode": 2}, Topology(nodes=4, processes_per_node=2, device=Device.CUDA)),
        (
            {"gpus": 2, "gpusPerNode": 1, "training": {"device": "cpu"}},
            Topology(nodes=2, processes_per_node=1, device=Device.CPU),
        ),
        ({"gpus": 1, "training": {"device": "cuda"}}, Topology(nodes=1, processes_per_node=1, device=Device.CUDA)),
    ],
    ids=["no gpus", "one pod", "full nodes", "small pods", "processes on cpu", "cuda by name"],
)
def test_gpus_are_spread_over_pods(spec: dict[str, Any], topology: Topology) -> None:
    assert resolved(**({"gpusPerNode": None} | spec)).topology == topology


def test_a_template_may_name_the_device() -> None:
    assert resolved(template={"training": {"device": "cpu"}}).topology.device is Device.CPU


def test_a_workspace_that_is_created_outlives_a_job_whose_result_it_holds() -> None:
    spec = resolved(workspace={"size": "50Gi", "storageClassName": "fast"})
    assert spec.create_claim is not None
    assert spec.create_claim.outlives_job
    assert (spec.create_claim.size, spec.create_claim.storage_class_name) == ("50Gi", "fast")
    assert spec.output.uri == f"pvc://support-bot-workspace-{UID[:8]}/support-bot-{UID[:8]}/output"
    assert spec.claims == (f"support-bot-workspace-{UID[:8]}",)
    assert spec.workspace_claim == f"support-bot-workspace-{UID[:8]}", "a later job of this name has another"


def test_a_workspace_that_is_created_goes_with_a_job_whose_result_is_elsewhere() -> None:
    spec = resolved(workspace={"size": "50Gi"}, output={"uri": "s3://team/out"})
    assert spec.create_claim is not None
    assert not spec.create_claim.outlives_job
    assert spec.workspace_claim == "support-bot-workspace"


@pytest.mark.parametrize(("per_node", "mode"), [(1, "ReadWriteMany"), (2, "ReadWriteOnce")])
def test_several_nodes_need_a_claim_that_they_can_share(per_node: int, mode: str) -> None:
    spec = resolved(gpusPerNode=per_node, workspace={"size": "50Gi"})
    assert spec.create_claim is not None
    assert spec.create_claim.access_mode == mode


@pytest.mark.parametrize(
    ("checkpoints", "handover", "secret"),
    [
        ({}, f"s3://team/out/.handover/{UID}", "out"),
        ({"uri": "s3://ckpt", "secretRef": {"name": "ckpt"}}, f"s3://ckpt/.handover/{UID}", "ckpt"),
    ],
)
def test_without_a_workspace_the_model_is_handed_over_through_a_bucket(
    checkpoints: dict[str, Any], handover: str, secret: str
) -> None:
    spec = resolved(output={"uri": "s3://team/out/", "secretRef": {"name": "out"}}, checkpoints=checkpoints)
    assert not spec.workspace.persistent
    assert (spec.workspace.handover_uri, spec.workspace.handover_secret) == (handover, secret)
    assert (spec.workspace_claim, spec.create_claim) == (None, None)


def test_a_job_without_a_home_for_its_result_is_told_every_way_out() -> None:
    with pytest.raises(SpecProblem) as problem:
        resolved(settings=PlanSettings())
    assert problem.value.reason is Reason.NO_OUTPUT
    assert "spec.output.uri" in problem.value.message


@pytest.mark.parametrize(
    ("every", "steps", "seconds"), [(None, None, None), (500, 500, None), ("90s", None, 90), ("2h", None, 7200)]
)
def test_checkpoints_come_by_steps_or_by_time(every: Any, steps: int | None, seconds: int | None) -> None:
    policy = resolved(checkpoints={"every": every}).checkpoints
    assert (policy.every_steps, policy.every_seconds) == (steps, seconds)


@pytest.mark.parametrize("uri", ["s3://ckpt", "s3://ckpt/", "pvc://ckpt/a"])
def test_jobs_that_share_a_second_home_keep_to_folders_of_their_own(uri: str) -> None:
    policy = resolved(checkpoints={"uri": uri}).checkpoints
    assert policy.uri == f"{uri.rstrip('/')}/support-bot-{UID[:8]}"


def test_every_secret_and_claim_that_is_named_is_found() -> None:
    job = a_job(
        model={"uri": "pvc://models/llama"},
        datasets=[{"uri": "s3://team/a.jsonl", "secretRef": {"name": "data"}}],
        output={"uri": "s3://team/out", "secretRef": {"name": "out"}},
        checkpoints={"uri": "pvc://ckpt/x", "secretRef": {"name": "ckpt"}},
        workspace={"claim": "shared"},
    )
    assert secret_fields(job) == {
        "data": "spec.datasets[0].secretRef.name",
        "out": "spec.output.secretRef.name",
        "ckpt": "spec.checkpoints.secretRef.name",
    }
    assert claim_names(job) == {"models", "ckpt", "shared"}


def test_a_claim_that_will_be_created_is_not_expected_to_exist_and_cannot_be_named_as_the_output() -> None:
    job = a_job(workspace={"size": "1Gi"}, output={"uri": "pvc://support-bot-workspace/out"})
    assert claim_names(job) == set()
    with pytest.raises(SpecProblem, match=r"spec\.output\.uri: .* leave spec\.output out"):
        resolve(job, a_template(), SETTINGS)


def test_a_pod_template_that_cannot_be_merged_names_the_field() -> None:
    with pytest.raises(SpecProblem, match=r"spec\.podTemplate\.spec\.containers\[0\] needs a name"):
        resolved(podTemplate={"spec": {"containers": [{"image": "x"}]}})


def test_the_resolved_spec_survives_its_config_map() -> None:
    spec = resolved(podTemplate={"spec": {"nodeSelector": None, "priorityClassName": "x"}})
    config_map = resolved_config_map(a_job(), spec)
    assert parse_resolved(config_map["data"]) == spec
    assert config_map["immutable"] is True


def test_jobs_that_are_configured_alike_have_the_same_hash() -> None:
    one, other = (a_job(name=name, checkpoints={"uri": "s3://ckpt"}) for name in ("one", "other"))
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"uid": "9" * 36})})
    assert resolve(one, a_template(), SETTINGS).config_hash == resolve(other, a_template(), SETTINGS).config_hash
    assert resolved(gpus=4).config_hash != resolved(gpus=2).config_hash


def test_a_checkpoint_to_begin_at_brings_its_claim_and_its_secret() -> None:
    resumed = {"uri": "pvc://archive/checkpoints", "secretRef": {"name": "old"}}
    job = a_job(checkpoints={"resumeFrom": resumed})
    assert "archive" in claim_names(job)
    assert "old" in secret_names(job)
    assert "archive" in resolved(checkpoints={"resumeFrom": resumed}).claims


def test_a_job_to_begin_from_brings_its_secret() -> None:
    job = a_job(checkpoints={"resumeFrom": {"job": "yesterday", "secretRef": {"name": "old"}}})
    assert secret_fields(job)["old"] == "spec.checkpoints.resumeFrom.secretRef.name"


def test_blocks_that_would_not_fit_into_a_pod_are_refused_by_the_name_of_the_largest() -> None:
    training = {"peftConfig": {"r": 8}, "trainerConfig": {"notes": "x" * 200_000}}
    with pytest.raises(SpecProblem, match=r"spec\.training\.trainerConfig: .* KiB fit into a pod"):
        resolve(a_job(training=training), a_template(), SETTINGS)
