"""Operator and trainer of different versions understand each other as far as that is safe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.status import Reason
from finetune_trainer.contract import (
    CONTRACT_VERSION,
    CheckpointPolicy,
    CheckpointRef,
    Env,
    ExitCode,
    Progress,
    Result,
    ResumeSource,
    RunConfig,
    Stage,
)
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.pod.runconfig import read_config

RUN: dict[str, Any] = {
    "job": {"name": "j", "namespace": "n", "uid": "u"},
    "stage": "prepare",
    "model": {"uri": "file:///m"},
    "datasets": [{"uri": "file:///d"}],
    "workspace": {"persistent": True},
    "output": {"uri": "file:///o"},
}


def read(tmp_path: Path, **changes: Any) -> RunConfig:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({**RUN, **changes}))
    return read_config(Stage.PREPARE, {Env.RUN_CONFIG: str(file)})


def test_a_trainer_ignores_what_a_newer_operator_of_the_same_version_adds(tmp_path: Path) -> None:
    config = read(tmp_path, novelty=1, job={**RUN["job"], "team": "a"})
    assert config.job.name == "j"
    assert "novelty" not in json.loads(config.to_json())


def test_a_run_configuration_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.version, config.attempt) == (1, 1)


def test_a_trainer_refuses_a_newer_version_even_when_it_cannot_read_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="older than the operator") as caught:
        read(tmp_path, version=CONTRACT_VERSION + 1, model="hf://in/another/shape")
    assert caught.value.advice == "use the trainer image of the operator's version"


def test_an_operator_reads_the_result_of_a_newer_trainer() -> None:
    text = json.dumps({"version": 9, "stage": "train", "exitCode": 70, "message": "m", "novelty": {"a": 1}})
    result = Result.model_validate_json(text)
    assert (result.version, result.exit_code, result.message) == (9, ExitCode.INTERNAL, "m")


@pytest.mark.parametrize(
    ("code", "read"), [(99, ExitCode.INTERNAL), (143, ExitCode.KILLED), (75, ExitCode.INTERRUPTED)]
)
def test_an_exit_code_that_the_operator_does_not_know_is_internal_or_a_signal(code: int, read: ExitCode) -> None:
    text = json.dumps({"stage": "train", "exitCode": code, "message": "m"})
    assert Result.model_validate_json(text).exit_code is read


def test_an_operator_reads_the_progress_of_a_newer_trainer() -> None:
    progress = Progress(stage=Stage.TRAIN, updated_at=datetime.now(UTC), step=3)
    newer = {**json.loads(progress.to_json()), "version": 9, "novelty": 1}
    newer["checkpoints"] = [{"step": 3, "uri": "u", "verified": True, "bytes": 1, "novelty": 1}]
    read = Progress.model_validate(newer)
    assert (read.step, read.checkpoints) == (3, (CheckpointRef(step=3, uri="u", verified=True, bytes=1),))


def test_where_to_resume_from_crosses_the_contract() -> None:
    policy = CheckpointPolicy(resume_from=ResumeSource(uri="s3://b/k", secret="keys"))  # noqa: S106 - the name of a Secret
    assert CheckpointPolicy.model_validate_json(policy.to_json()) == policy
    assert json.loads(policy.to_json())["resumeFrom"] == {"uri": "s3://b/k", "secret": "keys"}


@pytest.mark.parametrize("code", list(ExitCode), ids=lambda code: code.exit_name)
def test_every_exit_code_says_what_follows(code: ExitCode) -> None:
    assert code.consequence
    assert not (code.is_final and code.is_free)
    assert code is ExitCode.OK or Reason[code.name]


def test_only_an_interruption_is_free() -> None:
    assert [code for code in ExitCode if code.is_free] == [ExitCode.INTERRUPTED]


def test_checkpoints_survive_every_failure_that_neither_training_nor_its_input_has_to_answer_for() -> None:
    lost = {code for code in ExitCode if not code.is_resumable}
    assert lost == {
        ExitCode.OK,
        ExitCode.INVALID_CONFIG,
        ExitCode.INVALID_DATA,
        ExitCode.NOT_FOUND,
        ExitCode.DIVERGED,
    }
