"""Shows a status as it changes: a live view on a terminal, lines elsewhere. For local runs and for the cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.plan.model.plan import EventType, JobEvent
from finetune_operator.plan.model.text import duration
from finetune_trainer.contract import Stage

_LINE_EVERY: Final = 10.0
"""Seconds between two lines that differ in their numbers only."""
_BAR: Final = 40
_PHASE_STYLES: Final = {Phase.SUCCEEDED: "bold green", Phase.FAILED: "bold red", Phase.SUSPENDED: "bold yellow"}


def display(console: Console, name: str, started: datetime, *, plain: bool) -> LiveDisplay | PlainDisplay:
    """The live view when the console is a terminal and `plain` does not forbid it."""
    if plain or not console.is_terminal:
        return PlainDisplay(console)
    return LiveDisplay(console, name, started)


class PlainDisplay:
    """A line for each change, for logs and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._last_head: tuple[object, ...] = ()
        self._last_at: datetime | None = None

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, status: JobStatus, now: datetime) -> None:
        head = (status.phase, (status.progress and status.progress.message) or status.message)
        line = " ".join(part for part in (status.phase.value, _doing(status), *_numbers(status)) if part)
        waited = self._last_at is None or (now - self._last_at).total_seconds() >= _LINE_EVERY
        if head == self._last_head and (line == self._last or not waited):
            return
        self._last, self._last_head, self._last_at = line, head, now
        self._console.print(f"{now:%H:%M:%S} {line}", markup=False)

    def event(self, event: JobEvent, now: datetime) -> None:
        self._console.print(f"{now:%H:%M:%S} [{event.reason.value}] {event.message}", markup=False)


class LiveDisplay:
    """Stages, a progress bar and the newest numbers, redrawn in place; events scroll by above it."""

    def __init__(self, console: Console, name: str, started: datetime) -> None:
        self._console = console
        self._name = name
        self._started = started
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def running(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, status: JobStatus, now: datetime) -> None:
        self._live.update(self._view(status, now))

    def event(self, event: JobEvent, now: datetime) -> None:
        style = "yellow" if event.type is EventType.WARNING else "dim"
        self._console.print(Text(f"{now:%H:%M:%S} {event.message}", style=style))

    def _view(self, status: JobStatus, now: datetime) -> RenderableType:
        head = Text.assemble(
            (self._name, "bold"), "  ", (status.phase.value, _PHASE_STYLES.get(status.phase, "bold cyan")), "  "
        )
        head.append_text(_stages(status))
        head.append(f"  {duration((now - self._started).total_seconds())}", style="dim")
        rows: list[RenderableType] = [head, self._bar(status)]
        numbers = _numbers(status)
        if numbers:
            rows.append(Text("   ".join(numbers)))
        return Group(*rows)

    def _bar(self, status: JobStatus) -> RenderableType:
        progress = status.progress
        self._spinner.update(text=Text(_doing(status), style="dim"))
        if status.phase is not Phase.TRAINING or progress is None or not progress.total_steps or progress.step is None:
            return self._spinner
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=progress.total_steps, completed=progress.step, width=_BAR)
        grid.add_row(bar, Text(f"{progress.percent or ''}".rjust(4), style="cyan"), self._spinner)
        return grid


def _doing(status: JobStatus) -> str:
    """What a status says that the job is doing."""
    progress = status.progress
    if progress is None or not progress.message:
        return status.message
    if status.phase is Phase.TRAINING and progress.step is not None:
        return f"step {progress.step}/{progress.total_steps} {progress.message}"
    return progress.message


def _numbers(status: JobStatus) -> list[str]:
    """The newest figures with their names, while it trains; those that are not known are left out."""
    metrics, progress = status.metrics, status.progress
    if status.phase is not Phase.TRAINING:
        return []
    found = {
        "loss": metrics and metrics.loss,
        "eval loss": metrics and metrics.eval_loss,
        "tokens/s": metrics and metrics.tokens_per_second,
        "ETA": progress and progress.eta,
    }
    return [f"{name} {value}" for name, value in found.items() if value]


def _stages(status: JobStatus) -> Text:
    text = Text()
    stages = list(Stage)
    current = stages.index(status.stage) if status.stage else -1
    done = len(stages) if status.phase is Phase.SUCCEEDED else current
    for number, stage in enumerate(stages):
        mark, style = ("✓", "green") if number < done else ("●", "cyan") if number == current else ("○", "dim")
        text.append(f"{mark} {stage.value}  ", style=style)
    return text
