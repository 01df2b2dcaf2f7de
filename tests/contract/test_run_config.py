"""What the operator writes is what the trainer reads."""

from __future__ import annotations

import json

import pytest
from tests.unit.plan.builders import SETTINGS, a_job, prepared, trained

from finetune_operator import builtin
from finetune_operator.api.resources import ClusterFineTuneTemplate
from finetune_operator.api.status import Reason
from finetune_operator.plan.manifests.stages import stage_manifests
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.resolve.resolver import resolve
from finetune_trainer.contract import Env, ExitCode, RunConfig, Stage


def manifests(stage: Stage, template: ClusterFineTuneTemplate) -> tuple[Manifest, ...]:
    job = a_job(template={"name": template.metadata.name})
    resolved = resolve(job, template, SETTINGS)
    before = None if stage is Stage.PREPARE else prepared()
    return stage_manifests(job, resolved, stage, prepared=before, trained=trained() if stage is Stage.PUBLISH else None)


@pytest.mark.parametrize("template", builtin.templates(), ids=lambda template: template.metadata.name)
@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_reads_the_configuration_that_it_is_given(stage: Stage, template: ClusterFineTuneTemplate) -> None:
    pod = manifests(stage, template)[-1]["spec"]["template"]
    told = pod["metadata"]["annotations"][ANNOTATION_RUN_CONFIG]
    read = RunConfig.model_validate_json(told)
    assert read.stage is stage
    assert read.topology.world_size == 2
    assert json.loads(read.to_json()) == json.loads(told)


@pytest.mark.parametrize("stage", list(Stage))
def test_the_configuration_is_shown_where_the_stage_looks_for_it(stage: Stage) -> None:
    pod = manifests(stage, builtin.templates()[0])[-1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    path = next(entry["value"] for entry in container["env"] if entry["name"] == Env.RUN_CONFIG)
    mount = next(mount for mount in container["volumeMounts"] if path.startswith(f"{mount['mountPath']}/"))
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    (item,) = volume["downwardAPI"]["items"]
    assert f"{mount['mountPath']}/{item['path']}" == path
    assert item["fieldRef"]["fieldPath"] == f"metadata.annotations['{ANNOTATION_RUN_CONFIG}']"


@pytest.mark.parametrize("stage", list(Stage))
def test_every_folder_that_a_stage_looks_for_is_told(stage: Stage) -> None:
    job = manifests(stage, builtin.templates()[0])[-1]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    told = {entry["name"] for entry in container["env"]}
    wanted = set(Env) - {Env.NODE_RANK}
    if stage is not Stage.TRAIN:
        wanted -= {Env.MASTER_ADDR, Env.MASTER_PORT}
    assert wanted <= told


def test_every_failure_of_a_stage_is_a_reason_of_the_status() -> None:
    assert {code.name for code in ExitCode if code is not ExitCode.OK} <= set(Reason.__members__)
