"""What a run makes of the runs before it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.local.beginning import Beginning, beginning, make_room, read_status
from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.resolved import PodDefaults, ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_trainer.contract import (
    Artifact,
    CheckpointPolicy,
    DataPolicy,
    ModelSource,
    OutputTarget,
    Topology,
    TrainingConfig,
    WorkspacePolicy,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE = ResolvedSpec(
    template="t",
    model=ModelSource(uri="hf://a/b"),
    datasets=(),
    data=DataPolicy(),
    training=TrainingConfig(),
    topology=Topology(),
    checkpoints=CheckpointPolicy(),
    output=OutputTarget(uri="pvc://w/o"),
    workspace=WorkspacePolicy(persistent=True),
    pods=PodDefaults.of(PlanSettings()),
    config_hash="same",
)


def status(phase: Phase, reason: Reason | None = None) -> JobStatus:
    artifact = Artifact(kind="adapter", uri="pvc://pig-workspace/pig-1/output/adapter", sha256="0", bytes=1)
    return JobStatus(phase=phase, reason=reason, artifacts=(artifact,), completion_time=NOW)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, Beginning.RESUME),
        (status(Phase.TRAINING), Beginning.RESUME),
        (status(Phase.SUSPENDED), Beginning.RESUME),
        (status(Phase.SUCCEEDED), Beginning.DONE),
        (status(Phase.FAILED, Reason.INVALID_DATA), Beginning.START_OVER),
        (status(Phase.FAILED, Reason.DIVERGED), Beginning.START_OVER),
        (status(Phase.FAILED, Reason.CANNOT_WRITE), Beginning.RETRY),
        (status(Phase.FAILED, Reason.RESTARTS_EXHAUSTED), Beginning.RETRY),
    ],
)
def test_the_same_spec_goes_on_as_its_last_status_allows(before: JobStatus | None, expected: Beginning) -> None:
    assert beginning(before, BEFORE, "same", fresh=False) is expected


def test_another_spec_starts_over_whatever_the_last_run_came_to() -> None:
    assert beginning(status(Phase.SUCCEEDED), BEFORE, "other", fresh=False) is Beginning.CHANGED


def test_nothing_before_is_new_also_when_fresh_is_asked_for() -> None:
    assert beginning(None, None, "x", fresh=True) is Beginning.NEW


def test_fresh_wins_over_success() -> None:
    assert beginning(status(Phase.SUCCEEDED), BEFORE, "same", fresh=True) is Beginning.FRESH


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder.of(tmp_path, "default", "pig")
    for path in ("volumes/pig-workspace/pig-1/output/adapter", "volumes/pig-workspace/pig-1/checkpoints", "configs/c"):
        (folder.root / path).mkdir(parents=True)
    folder.status_file.write_text(status(Phase.SUCCEEDED).model_dump_json(by_alias=True))
    return folder


def test_starting_over_keeps_the_artifact_and_the_uid(folder: JobFolder) -> None:
    uid = folder.uid()
    make_room(folder, read_status(folder), Beginning.CHANGED, NOW)
    assert sorted(path.name for path in (folder.previous_dir / "20260101T120000").iterdir()) == [
        "adapter",
        "status.json",
    ]
    assert not folder.volumes_dir.exists()
    assert not folder.status_file.exists()
    assert folder.uid() == uid


def test_trying_again_keeps_the_checkpoints(folder: JobFolder) -> None:
    make_room(folder, read_status(folder), Beginning.RETRY, NOW)
    assert (folder.volumes_dir / "pig-workspace/pig-1/checkpoints").is_dir()
    assert not folder.configs_dir.exists()


def test_resuming_clears_nothing_away(folder: JobFolder) -> None:
    make_room(folder, read_status(folder), Beginning.RESUME, NOW)
    assert folder.status_file.exists()
    assert folder.configs_dir.exists()


def test_a_status_that_cannot_be_read_counts_as_none(folder: JobFolder) -> None:
    folder.status_file.write_text("{")
    assert read_status(folder) is None
