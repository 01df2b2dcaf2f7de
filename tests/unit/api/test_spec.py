"""Reading jobs: what is refused offline, with the words that the API server would use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.spec import JobSpec
from finetune_operator.api.status import Attempt, AttemptEnd, JobStatus
from finetune_operator.builtin import templates
from finetune_trainer.adaptations import METHODS
from finetune_trainer.contract import DataFormat, ExitCode

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SMALLEST: dict[str, Any] = {
    "model": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
    "template": {"name": "qlora"},
    "datasets": [{"uri": "s3://team/support.jsonl"}],
    "gpus": 4,
}


def test_four_fields_are_enough() -> None:
    spec = JobSpec.model_validate(SMALLEST)
    assert spec.datasets[0].format is DataFormat.AUTO
    assert spec.checkpoints.keep == 2
    assert spec.run_policy.max_restarts == 3


@pytest.mark.parametrize("missing", sorted(SMALLEST))
def test_each_of_them_is_needed(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        JobSpec.model_validate({field: value for field, value in SMALLEST.items() if field != missing})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gpu": 1}, "gpu"),
        ({"gpus": -1}, "greater than or equal to 0"),
        ({"gpus": 3, "gpusPerNode": 2}, "multiple of gpusPerNode"),
        ({"gpus": 12}, "multiple of gpusPerNode"),
        ({"model": {"uri": "ftp://host/model"}}, "must be a URI that starts with one of hf://"),
        ({"output": {"uri": "hf://me/model"}}, "must be a URI that starts with one of s3://"),
        ({"workspace": {"claim": "a", "size": "1Gi"}}, "exactly one of claim"),
        ({"workspace": {}}, "exactly one of claim"),
        ({"workspace": {"claim": "a", "storageClassName": "fast"}}, "storageClassName only applies"),
        ({"workspace": {"claim": "../../other/secrets/db"}}, "name of a PersistentVolumeClaim"),
        ({"workspace": {"claim": "x?watch=true"}}, "name of a PersistentVolumeClaim"),
        ({"workspace": {"claim": "team\n"}}, "name of a PersistentVolumeClaim"),
        ({"workspace": {"size": "1Gi", "storageClassName": "a%2fb"}}, "name of a StorageClass"),
        ({"template": {"name": "a..b"}}, "name of a template"),
        ({"model": {"uri": "hf://a/b", "secretRef": {"name": "-x"}}}, "name of a Secret"),
        ({"model": {"uri": "pvc://claim?x/model"}}, "must name a PersistentVolumeClaim"),
        ({"model": {"uri": "pvc://claim/../model"}}, "must not hold '..'"),
        ({"output": {"uri": "file:///a/.."}}, "must not hold '..'"),
        ({"output": {"uri": "s3://team/model\n"}}, "must be a URI that starts with one of s3://"),
        ({"checkpoints": {"resumeFrom": {}}}, "exactly one of job"),
        ({"checkpoints": {"resumeFrom": {"job": "a", "uri": "s3://a/b"}}}, "exactly one of job"),
        ({"checkpoints": {"resumeFrom": {"job": "a.b"}}}, "name of a FineTuneJob"),
        ({"checkpoints": {"resumeFrom": {"uri": "https://host/x"}}}, "starts with one of s3://"),
        ({"runPolicy": {"activeDeadlineSeconds": 10**12}}, "less than or equal to 315360000"),
        ({"checkpoints": {"every": 10**12}}, "a number of steps"),
        ({"checkpoints": {"every": "15"}}, "a number of steps"),
        ({"checkpoints": {"every": 0}}, "a number of steps"),
        ({"data": {"validationFraction": 0.9}}, "hold out half"),
        ({"datasets": []}, "at least 1 item"),
        ({"training": {"method": "lorra"}}, "use one of lora, qlora, full"),
    ],
)
def test_a_bad_spec_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        JobSpec.model_validate(SMALLEST | change)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"uri": "hf://a/b", "secretRef": {"name": "team.example.org"}}},
        {"workspace": {"claim": "0-data.v2"}},
        {"model": {"uri": "pvc://team.data"}},
        {"model": {"uri": "pvc://team-data/a..b/...c/model"}},
        {"checkpoints": {"resumeFrom": {"job": "yesterday-1"}}},
        {"checkpoints": {"resumeFrom": {"uri": "pvc://team/checkpoints", "secretRef": {"name": "x"}}}},
    ],
)
def test_every_name_that_kubernetes_allows_is_allowed(change: dict[str, Any]) -> None:
    JobSpec.model_validate(SMALLEST | change)


@pytest.mark.parametrize("name", ["x" * 64, "1st", "Support", "a.b", "a\n"])
def test_a_name_that_pods_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="pods and Services are named after it"):
        FineTuneJob.model_validate({"metadata": {"name": name}, "spec": SMALLEST})


def test_free_form_blocks_keep_the_libraries_own_names() -> None:
    blocks = {"peftConfig": {"lora_alpha": 32, "rank_pattern": {"q_proj": 8}}, "modelConfig": {"dtype": "auto"}}
    spec = JobSpec.model_validate(SMALLEST | {"training": blocks})
    assert spec.training.model_dump(by_alias=True, exclude_none=True) == blocks


def test_a_status_survives_the_api_server() -> None:
    moment = datetime(2026, 3, 1, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    status = JobStatus(start_time=moment, attempts=(Attempt(number=1, start=moment),))
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["startTime"] == "2026-03-01T12:00:00Z"
    assert JobStatus.model_validate(written) == status
    assert status.start_time == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_status_that_a_newer_operator_wrote_can_be_read() -> None:
    assert JobStatus.model_validate({"phase": "Training", "gpuSeconds": 17}).phase.value == "Training"


def test_the_templates_that_come_with_the_operator_cover_every_method() -> None:
    built_in = {template.metadata.name: template.spec for template in templates()}
    assert set(built_in) == set(METHODS)
    for name, spec in built_in.items():
        assert spec.training is not None
        assert spec.training.method == name
        assert spec.description


def test_every_exit_of_the_trainer_is_an_end_of_an_attempt() -> None:
    assert {AttemptEnd.of(code).value for code in ExitCode} < set(AttemptEnd)


def test_an_end_that_a_newer_operator_wrote_is_read() -> None:
    read = Attempt.model_validate({"number": 1, "start": "2026-03-01T12:00:00Z", "reason": "replanned"})
    assert read.reason == "replanned"


def test_a_known_end_is_written_as_its_word() -> None:
    ended = Attempt(number=1, start=NOON).model_copy(update={"reason": AttemptEnd.PREEMPTED})
    assert '"reason":"preempted"' in ended.model_dump_json()
