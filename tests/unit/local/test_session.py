"""How a run is opened: what the job becomes on this machine, and what it finds of other runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_operator import builtin
from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.cli import jobfile
from finetune_operator.local.beginning import Beginning
from finetune_operator.local.folders import JobFolder
from finetune_operator.local.session import CannotRunHereError, Opened, Session
from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.problems import SpecProblem
from finetune_trainer.contract import CheckpointRef

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(name: str, labels: dict[str, str] | None = None, **spec: Any) -> FineTuneJob:
    plain = {
        "model": {"uri": "hf://owner/model"},
        "template": {"name": "lora"},
        "datasets": [{"uri": "s3://bucket/data.jsonl"}],
        "gpus": 0,
    }
    metadata = {"name": name, "namespace": "team", "labels": labels or {}}
    return FineTuneJob.model_validate({"metadata": metadata, "spec": {**plain, **spec}})


def opened(state: Path, wanted: FineTuneJob) -> Opened:
    template = jobfile.find_template(wanted, builtin.templates())
    folder = JobFolder.of(state, "team", wanted.metadata.name)
    folder.root.mkdir(parents=True, exist_ok=True)
    return Session(folder, {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": ""}).open(wanted, template, NOW)


def resumes(opened: Opened) -> str | None:
    source = opened.resolved.checkpoints.resume_from
    return None if source is None else source.uri


@pytest.fixture
def first(tmp_path: Path) -> JobFolder:
    """A job that has succeeded, with a verified checkpoint in the claim that was made for it."""
    run = opened(tmp_path, job("first"))
    folder = JobFolder.of(tmp_path, "team", "first")
    claim = run.resolved.workspace_claim
    assert claim is not None
    (folder.own_claim(claim) / "checkpoints/step-20").mkdir(parents=True)
    uri = f"file://{folder.own_claim(claim)}/checkpoints/step-20"  # as the trainer reports it here
    checkpoint = CheckpointRef(step=20, uri=uri, verified=True, bytes=1)
    status = JobStatus(phase=Phase.SUCCEEDED, checkpoints=(checkpoint,))
    folder.status_file.write_text(status.model_dump_json(by_alias=True))
    return folder


FROM_FIRST = {"resumeFrom": {"job": "first"}}


def test_a_job_resumes_from_the_checkpoints_of_a_local_run(tmp_path: Path, first: JobFolder) -> None:
    second = opened(tmp_path, job("second", checkpoints=FROM_FIRST))
    uri = resumes(second)
    assert uri is not None
    (claim,) = (name for name in second.resolved.claims if name.startswith("first-"))
    assert uri == f"pvc://{claim}/checkpoints"
    folder = JobFolder.of(tmp_path, "team", "second")
    assert folder.claim(claim) == first.own_claim(claim)
    assert (folder.claim(claim) / "checkpoints/step-20").is_dir()
    seen = second.cluster.observe(second.job, None).resume_from
    assert seen is not None
    assert (seen.metadata.name, seen.status and seen.status.phase) == ("first", Phase.SUCCEEDED)


def test_what_a_job_resumes_from_stays_when_the_other_job_runs_again_or_is_gone(
    tmp_path: Path, first: JobFolder
) -> None:
    wanted = job("second", checkpoints=FROM_FIRST)
    before = opened(tmp_path, wanted)
    first.status_file.unlink()
    again = opened(tmp_path, wanted)
    assert again.how is Beginning.RESUME
    assert (again.resolved.config_hash, resumes(again)) == (before.resolved.config_hash, resumes(before))
    other = opened(tmp_path, job("second", checkpoints={"resumeFrom": {"uri": "s3://bucket/others"}}))
    assert (other.how, resumes(other)) == (Beginning.CHANGED, "s3://bucket/others")


def test_a_uri_to_resume_from_is_taken_as_it_is(tmp_path: Path) -> None:
    run = opened(tmp_path, job("second", checkpoints={"resumeFrom": {"uri": "file:///old/checkpoints"}}))
    assert resumes(run) == "file:///old/checkpoints"


def test_resuming_from_a_job_that_never_ran_here_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotRunHereError, match=r"resumeFrom\.job: no job first has run") as caught:
        opened(tmp_path, job("second", checkpoints=FROM_FIRST))
    assert "resumeFrom.uri" in caught.value.advice


def test_resuming_from_a_job_that_runs_is_refused(tmp_path: Path, first: JobFolder) -> None:
    first.status_file.write_text(JobStatus(phase=Phase.TRAINING).model_dump_json(by_alias=True))
    with first.locked(), pytest.raises(SpecProblem, match="still runs"):
        opened(tmp_path, job("second", checkpoints=FROM_FIRST))


def test_a_job_for_a_queue_starts_at_once(tmp_path: Path) -> None:
    run = opened(tmp_path, job("pig", labels={LABEL_QUEUE: "gpus", "team": "x"}))
    assert run.job.metadata.labels == {"team": "x"}
    assert "queue gpus: not used here, the job starts at once" in run.notices
