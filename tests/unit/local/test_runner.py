"""The loop of a local run, with the real planner and scripts for stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from finetune_operator import builtin
from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.cli import jobfile
from finetune_operator.local.beginning import Beginning
from finetune_operator.local.folders import JobFolder
from finetune_operator.local.runner import LocalRun, StopSignal
from finetune_operator.local.session import SETTINGS, Session
from finetune_operator.plan.model.plan import JobEvent
from finetune_trainer.contract import (
    DataFormat,
    ExitCode,
    PreparedData,
    Published,
    Result,
    Stage,
    TrainedModel,
)

PREPARED = PreparedData(format=DataFormat.TEXT, rows=1, train_rows=1, eval_rows=0, digest="d")
TRAINED = TrainedModel(step=1, total_steps=1, epoch=1, trainable_parameters=1, total_parameters=1, digest="d")
RESULTS = {
    Stage.PREPARE: Result(stage=Stage.PREPARE, exit_code=ExitCode.OK, message="done", prepared=PREPARED),
    Stage.TRAIN: Result(stage=Stage.TRAIN, exit_code=ExitCode.OK, message="done", trained=TRAINED),
    Stage.PUBLISH: Result(
        stage=Stage.PUBLISH, exit_code=ExitCode.OK, message="done", published=Published(artifacts=())
    ),
}
SCRIPT = """
import json, os, pathlib, shutil, signal, sys, time
told = json.loads(sys.argv[1])
folder = pathlib.Path(told["folder"])
config = json.load(open(os.environ["FINETUNE_RUN_CONFIG"]))
def stop(*_):
    shutil.copy(folder / "status.json", folder / "at-sigterm.json")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if config["stage"] == "train":
    (folder / f"attempt-{config['attempt']}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
open(os.environ["FINETUNE_TERMINATION_LOG"], "w").write(told[config["stage"]])
"""
"""A stage that ends well at once; only train waits for the file `go`, and notes the status when it is told to stop."""


@dataclass
class Watcher:
    """A display that calls `at` once for each status that is shown."""

    at: Callable[[JobStatus], None] = lambda _: None
    shown: list[str] = field(default_factory=list)

    def show(self, status: JobStatus, now: datetime) -> None:
        del now
        self.shown.append(status.phase)
        self.at(status)

    def event(self, event: JobEvent, now: datetime) -> None:
        del now
        self.shown.append(event.reason)


def job(folder: Path, **run_policy: int) -> FineTuneJob:
    told: dict[str, str] = {
        "folder": str(folder),
        **{stage.value: result.to_json() for stage, result in RESULTS.items()},
    }
    container = {"name": "trainer", "command": ["python", "-c", SCRIPT, json.dumps(told)]}
    spec = {
        "model": {"uri": "hf://owner/model"},
        "template": {"name": "lora"},
        "datasets": [{"uri": "s3://bucket/data.jsonl"}],
        "gpus": 0,
        "runPolicy": run_policy,
        "podTemplate": {"spec": {"containers": [container]}},
    }
    return FineTuneJob.model_validate({"metadata": {"name": "pig", "namespace": "team"}, "spec": spec})


@dataclass
class Runs:
    """Runs of one job, one after the other."""

    root: Path
    how: Beginning | None = None
    left_running: bool = False

    @property
    def folder(self) -> JobFolder:
        return JobFolder.of(self.root, "team", "pig")

    def run(self, watcher: Watcher, stopping: StopSignal | None = None, **run_policy: int) -> JobStatus:
        wanted = job(self.folder.root, **run_policy)
        template = jobfile.find_template(wanted, builtin.templates())
        self.folder.root.mkdir(parents=True, exist_ok=True)
        session = Session(self.folder, {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": ""})
        opened = session.open(wanted, template, datetime.now(UTC))
        self.how = opened.how
        files = [self.folder.status_file]
        run = LocalRun(opened.job, template, SETTINGS, opened.cluster, watcher, files, stopping or StopSignal())
        status = run.execute()
        self.left_running = opened.cluster.running
        return status

    def has(self, name: str) -> bool:
        return (self.folder.root / name).exists()

    def go(self) -> None:
        (self.folder.root / "go").touch()

    def status_at_sigterm(self) -> JobStatus:
        return JobStatus.model_validate_json((self.folder.root / "at-sigterm.json").read_text())


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_run_that_is_stopped_is_suspended_and_goes_on_when_it_is_run_again(runs: Runs) -> None:
    stopping = StopSignal()

    def stop_once_it_trains(status: JobStatus) -> None:
        if status.phase is Phase.TRAINING and runs.has("attempt-1") and not stopping.stop:
            stopping.request()

    status = runs.run(Watcher(stop_once_it_trains), stopping)
    assert (status.phase, runs.left_running) == (Phase.SUSPENDED, False)
    assert runs.status_at_sigterm().reason == Reason.SUSPENDING
    runs.go()
    status = runs.run(Watcher())
    assert (status.phase, runs.how) == (Phase.SUCCEEDED, Beginning.RESUME)
    assert [attempt.reason for attempt in status.attempts] == ["suspended", "ok"]
    assert runs.has("attempt-2")
    assert status.restarts == 0


def test_the_status_file_says_why_before_the_pods_are_told_to_stop(runs: Runs) -> None:
    status = runs.run(Watcher(), activeDeadlineSeconds=3)
    assert (status.phase, status.reason, runs.left_running) == (Phase.FAILED, Reason.DEADLINE_EXCEEDED, False)
    assert runs.status_at_sigterm().reason == Reason.DEADLINE_EXCEEDED


def test_a_run_that_was_out_of_time_goes_on_when_it_is_run_again(runs: Runs) -> None:
    assert runs.run(Watcher(), activeDeadlineSeconds=3).phase is Phase.FAILED
    runs.go()
    assert runs.run(Watcher()).phase is Phase.SUCCEEDED
    assert runs.how is Beginning.RETRY


def test_stopping_twice_leaves_no_process(runs: Runs) -> None:
    stopping = StopSignal()

    def stop_twice(status: JobStatus) -> None:
        if status.phase is Phase.TRAINING and not stopping.stop:
            stopping.request()
            stopping.request()

    begun = monotonic()
    runs.run(Watcher(stop_twice), stopping)
    assert not runs.left_running
    assert monotonic() - begun < 30
    assert not runs.has("at-sigterm.json")
