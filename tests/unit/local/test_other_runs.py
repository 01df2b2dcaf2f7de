"""Jobs that go on from one another's checkpoints on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.local.folders import JobFolder
from finetune_operator.local.other_runs import job_named, read_job

JOB = """{"apiVersion": "finetune-operator.io/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "first"}, "spec":
  {"model": {"uri": "hf://a/b"}, "template": {"name": "lora"}, "datasets": [{"uri": "s3://a/b"}], "gpus": 0}}"""


@pytest.fixture
def second(tmp_path: Path) -> JobFolder:
    """The folder of a job next to `first`, which has run."""
    folder = JobFolder.of(tmp_path, "team", "second")
    first = folder.neighbour("first")
    first.root.mkdir(parents=True)
    first.job_file.write_text(JOB)
    return folder


def with_status(folder: JobFolder, phase: Phase) -> None:
    folder.neighbour("first").status_file.write_text(JobStatus(phase=phase, message="m").model_dump_json(by_alias=True))


def found(folder: JobFolder) -> FineTuneJob:
    job = job_named("first", folder)
    assert job is not None
    return job


def phase(job: FineTuneJob) -> Phase:
    assert job.status is not None
    return job.status.phase


def test_a_job_of_the_namespace_is_found_with_its_status(second: JobFolder) -> None:
    assert found(second).status is None
    with_status(second, Phase.SUCCEEDED)
    assert (found(second).metadata.name, phase(found(second))) == ("first", Phase.SUCCEEDED)


def test_one_that_never_ran_or_of_another_namespace_is_not_found(second: JobFolder, tmp_path: Path) -> None:
    assert job_named("third", second) is None
    assert job_named("first", JobFolder.of(tmp_path, "other", "second")) is None
    second.neighbour("first").job_file.write_text("{}")
    assert read_job(second.neighbour("first")) is None


def test_a_run_that_was_killed_is_suspended_and_one_that_goes_on_is_not(second: JobFolder) -> None:
    with_status(second, Phase.TRAINING)
    assert phase(found(second)) is Phase.SUSPENDED
    with second.neighbour("first").locked():
        assert phase(found(second)) is Phase.TRAINING
    assert phase(found(second)) is Phase.SUSPENDED
