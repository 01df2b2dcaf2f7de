"""How a status is shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from finetune_operator.api.status import Attempt, JobStatus, Metrics, Phase, ProgressStatus, Reason
from finetune_operator.cli.display import LiveDisplay, PlainDisplay, display
from finetune_operator.cli.outcome import exit_code
from finetune_operator.cli.report import report
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_trainer.contract import Artifact, ExitCode, Sample, Stage, TrainedModel

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TRAINED = TrainedModel(
    step=90,
    total_steps=90,
    epoch=3,
    eval_loss=0.8,
    base_eval_loss=3.2,
    tokens_per_second=1234.5,
    trainable_parameters=1_000_000,
    total_parameters=100_000_000,
    seconds=200,
    digest="d",
)


def screen(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def training(step: int, loss: str = "1.5") -> JobStatus:
    progress = ProgressStatus(
        step=step, total_steps=90, percent=f"{step * 100 // 90}%", eta="3m10s", message="training"
    )
    return JobStatus(
        phase=Phase.TRAINING, stage=Stage.TRAIN, progress=progress, metrics=Metrics(loss=loss, tokens_per_second="900")
    )


def test_without_a_terminal_there_is_a_line_for_each_change_and_steps_are_spaced() -> None:
    console = screen()
    shown = display(console, "pig", NOW, plain=False)
    assert isinstance(shown, PlainDisplay)
    for second in range(25):
        shown.show(training(second), NOW + timedelta(seconds=second))
    shown.show(JobStatus(phase=Phase.PUBLISHING, stage=Stage.PUBLISH, message="uploading"), NOW + timedelta(seconds=25))
    lines = text(console).splitlines()
    assert lines[0] == "12:00:00 Training step 0/90 training loss 1.5 tokens/s 900 ETA 3m10s"
    assert [line.split()[0] for line in lines] == ["12:00:00", "12:00:10", "12:00:20", "12:00:25"]


def test_an_event_is_a_line_with_its_reason() -> None:
    console = screen()
    PlainDisplay(console).event(JobEvent(EventType.WARNING, Reason.RESTARTING, "rank 1 [is] gone"), NOW)
    assert text(console) == "12:00:00 [Restarting] rank 1 [is] gone\n"


def test_a_terminal_gets_stages_a_bar_and_numbers() -> None:
    console = screen(terminal=True)
    shown = display(console, "pig", NOW, plain=False)
    assert isinstance(shown, LiveDisplay)
    with shown.running():
        shown.show(training(45), NOW + timedelta(seconds=70))
    seen = text(console)
    assert all(
        words in seen for words in ("pig", "Training", "prepare", "50%", "step 45/90", "loss 1.5", "ETA", "1m10s")
    )


def test_the_report_shows_losses_samples_artifact_and_how_to_use_it() -> None:
    console = screen()
    artifact = Artifact(kind="adapter", uri="s3://bucket/pig", sha256="abc", bytes=2_000_000)
    samples = (Sample(prompt="hello", before="Hi!", after="ellohay"),)
    status = JobStatus(phase=Phase.SUCCEEDED, trained=TRAINED, samples=samples, artifacts=(artifact,))
    report(console, status)
    seen = text(console)
    assert all(words in seen for words in ("3.2000", "0.8000", "0.25", "90/90", "1,234", "1,000,000 (1.00 %)"))
    assert all(words in seen for words in ("hello", "Hi!", "ellohay", "s3://bucket/pig", "sha256 abc, 1.9 MiB"))


def test_a_failure_says_why_and_ends_with_the_stages_code() -> None:
    console = screen()
    status = JobStatus(phase=Phase.FAILED, reason=Reason.INVALID_DATA, message="30 % of the rows are unusable")
    report(console, status)
    assert "30 % of the rows are unusable" in text(console)
    assert exit_code(status) is ExitCode.INVALID_DATA


def test_the_report_shows_what_each_attempt_cost_and_how_it_ended() -> None:
    console = screen()
    first = Attempt(
        number=1,
        start=NOW,
        running_since=NOW + timedelta(seconds=70),
        end=NOW + timedelta(seconds=3670),
        reason="peer-lost",
        exit_code=76,
        gpu_seconds=7200,
    )
    second = Attempt(number=2, start=NOW + timedelta(hours=2), resumed_from_step=40)
    report(console, JobStatus(phase=Phase.FAILED, attempts=(first, second), gpu_seconds=7200))
    lines = [" ".join(line.split()) for line in text(console).splitlines()]
    assert "Attempts: 2.00 GPU-hours" in lines
    assert "1 01-01 12:00:00 1m10s 1h00m 2.00 - peer-lost (exit code 76)" in lines
    assert "2 01-01 14:00:00 - - 0.00 40 -" in lines


def test_attempts_without_gpus_fit_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    attempt = Attempt(number=1, start=NOW, running_since=NOW, end=NOW, reason="interrupted", exit_code=75)
    report(console, JobStatus(phase=Phase.SUSPENDED, attempts=(attempt, attempt)))
    assert text(console).count("interrupted (exit code 75)") == 2
    assert "GPU" not in text(console)


def test_the_report_of_a_run_without_a_break_on_the_cpu_has_no_attempts() -> None:
    console = screen()
    report(console, JobStatus(phase=Phase.SUCCEEDED, attempts=(Attempt(number=1, start=NOW),)))
    assert text(console) == ""


def test_exit_codes_of_other_ends() -> None:
    assert exit_code(JobStatus(phase=Phase.SUCCEEDED)) is ExitCode.OK
    assert exit_code(JobStatus(phase=Phase.SUSPENDED, reason=Reason.SUSPENDED)) is ExitCode.INTERRUPTED
    assert exit_code(JobStatus(phase=Phase.FAILED, reason=Reason.DEADLINE_EXCEEDED)) is ExitCode.INTERNAL
    assert exit_code(JobStatus(phase=Phase.PENDING, reason=Reason.INVALID_SPEC)) is ExitCode.INVALID_CONFIG
