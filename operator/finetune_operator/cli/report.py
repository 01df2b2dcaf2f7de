"""What a run came to: held-out numbers, answers before and after, where the artifact lies, how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_operator.api.status import Attempt, JobStatus, Phase
from finetune_operator.cli.figures import count, size
from finetune_operator.cli.snippet import snippet
from finetune_operator.local.artifacts import local_folder
from finetune_operator.local.folders import JobFolder, shown
from finetune_operator.plan.model.text import duration
from finetune_trainer.contract import Artifact, ModelSource, Sample, TrainedModel


@dataclass(frozen=True)
class RanHere:
    """Of a job that ran on this machine."""

    folder: JobFolder
    model: ModelSource
    """The model that it started from."""


def report(console: Console, status: JobStatus, ran_here: RanHere | None = None) -> None:
    """Prints the outcome of a job that has ended. When it ran here, paths are this machine's."""
    if len(status.attempts) > 1 or any(attempt.gpu_seconds for attempt in status.attempts):
        console.print(_attempts(status))
    if status.phase is Phase.FAILED:
        _failure(console, status)
        return
    if status.trained is not None:
        console.print(_numbers(status.trained))
    if status.samples:
        console.print(_samples(status.samples))
    for artifact in status.artifacts:
        _artifact(console, artifact, ran_here)


def _failure(console: Console, status: JobStatus) -> None:
    console.print(Text(f"Failed ({status.reason or 'unknown'})", style="bold red"))
    console.print(Text(status.message, style="red"))


def _numbers(trained: TrainedModel) -> Table:
    table = Table(title="Held-out loss", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in ("before", "after", "ratio", "steps", "tokens/s", "time", "weights trained"):
        table.add_column(heading, justify="right", no_wrap=True)
    before, after = trained.base_eval_loss, trained.eval_loss
    ratio = f"{after / before:.2f}" if before and after is not None else "-"
    share = 100 * trained.trainable_parameters / max(1, trained.total_parameters)
    table.add_row(
        "-" if before is None else f"{before:.4f}",
        "-" if after is None else f"{after:.4f}",
        ratio,
        f"{trained.step}/{trained.total_steps}",
        "-" if trained.tokens_per_second is None else count(trained.tokens_per_second),
        duration(trained.seconds),
        f"{count(trained.trainable_parameters)} ({share:.2f} %)",
    )
    return table


def _attempts(status: JobStatus) -> Table:
    """How often training was started, and what each time cost."""
    title = "Attempts" if status.gpu_seconds is None else f"Attempts: {_gpu_hours(status.gpu_seconds)} GPU-hours"
    has_gpus = status.gpu_seconds is not None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for heading in ("#", "started", "waited", "ran", *(["GPU-hours"] if has_gpus else []), "from step"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ended by", min_width=12, overflow="fold")
    for attempt in status.attempts:
        spent = [_gpu_hours(attempt.gpu_seconds or 0)] if has_gpus else []
        running, end = attempt.running_since, attempt.end
        table.add_row(
            str(attempt.number),
            f"{attempt.start:%m-%d %H:%M:%S}",
            duration((running - attempt.start).total_seconds()) if running else "-",
            duration((end - running).total_seconds()) if running and end else "-",
            *spent,
            "-" if attempt.resumed_from_step is None else str(attempt.resumed_from_step),
            _end(attempt),
        )
    return table


def _end(attempt: Attempt) -> str:
    return (attempt.reason or "-") + (f" (exit code {attempt.exit_code})" if attempt.exit_code else "")


def _gpu_hours(seconds: int) -> str:
    return f"{seconds / 3600:.2f}"


def _samples(samples: Sequence[Sample]) -> Table:
    table = Table(title="Samples", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", show_lines=True)
    table.add_column("prompt", ratio=2)
    table.add_column("before", style="dim", ratio=3)
    table.add_column("after", style="green", ratio=3)
    for sample in samples:
        table.add_row(Text(sample.prompt), Text(sample.before.strip()), Text(sample.after.strip()))
    return table


def _artifact(console: Console, artifact: Artifact, ran_here: RanHere | None) -> None:
    path = ran_here and local_folder(artifact.uri, ran_here.folder)
    where = shown(path) if path else artifact.uri
    console.print(Text.assemble((f"{artifact.kind.capitalize()}: ", "bold"), (where, "bold green")))
    console.print(Text(f"  sha256 {artifact.sha256}, {size(artifact.bytes)}", style="dim"))
    code = path and ran_here and snippet(artifact.kind, path, ran_here.model, ran_here.folder)
    if code:
        console.print(Text("  Use it:", style="bold"))
        console.print(Text("".join(f"    {line}\n" for line in code.splitlines()), end=""))
