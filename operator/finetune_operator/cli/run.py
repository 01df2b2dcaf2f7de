"""`finetune run`: a job's pods as processes of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.text import Text

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.cli import jobfile
from finetune_operator.cli.console import output
from finetune_operator.cli.display import display
from finetune_operator.cli.errors import CliError, Problem
from finetune_operator.cli.outcome import exit_code
from finetune_operator.cli.report import RanHere, report
from finetune_operator.local.beginning import Beginning
from finetune_operator.local.folders import AlreadyRunningError, JobFolder, shown, write_atomically
from finetune_operator.local.runner import LocalRun, StopSignal
from finetune_operator.local.session import SETTINGS, CannotRunHereError, Opened, Session
from finetune_operator.plan.model.problems import SpecProblem
from finetune_trainer.contract import ExitCode

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HOW: Final = {
    Beginning.RESUME: "Resuming the run that was interrupted.",
    Beginning.RETRY: "The last run failed ({reason}); trying again from its newest checkpoint.",
    Beginning.START_OVER: "The last run failed ({reason}); starting over.",
    Beginning.CHANGED: "The job has changed since the last run; starting over.",
    Beginning.FRESH: "Starting over.",
}


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    file: Path
    state_dir: Path
    fresh: bool = False
    status_file: Path | None = None
    secrets: Path | None = None
    templates: Path | None = None
    plain: bool = False


def run(options: Options) -> int:
    """Runs the job to its end, shows it, and returns the command's exit code."""
    job, template = _read(options)
    folder = JobFolder.of(options.state_dir, job.metadata.namespace or jobfile.DEFAULT_NAMESPACE, job.metadata.name)
    console = output()
    session = Session(folder, dict(os.environ), options.secrets, options.fresh)
    try:
        with folder.locked():
            opened = session.open(job, template, datetime.now(UTC))
            return _run_opened(opened, template, options, folder, console)
    except AlreadyRunningError as error:
        raise CliError(str(error), advice="wait for it, or stop it with Ctrl-C where it runs", exit_code=1) from error
    except SpecProblem as error:
        raise CliError("the job cannot run:", Problem("", error.message)) from error
    except CannotRunHereError as error:
        raise CliError(error.message, advice=error.advice) from error


def _read(options: Options) -> tuple[FineTuneJob, Template]:
    from finetune_operator import builtin  # noqa: PLC0415 - reads files

    job, contents = jobfile.read_job(options.file)
    more = jobfile.read_templates(options.templates) if options.templates else ()
    return job, jobfile.find_template(job, (*contents.templates, *more, *builtin.templates()))


def _run_opened(opened: Opened, template: Template, options: Options, folder: JobFolder, console: Console) -> int:
    _greet(console, opened, folder)
    if opened.how is Beginning.DONE:
        return _show_again(console, opened, options, folder)
    files = [folder.status_file, *([options.status_file.absolute()] if options.status_file else [])]
    shower = display(console, opened.job.metadata.name, datetime.now(UTC), plain=options.plain)
    stopping = StopSignal()
    job_run = LocalRun(opened.job, template, SETTINGS, opened.cluster, shower, files, stopping)
    with _stopped_by_signals(stopping, console), shower.running():
        status = job_run.execute()
    return _end(console, status, opened, stopping, folder)


def _greet(console: Console, opened: Opened, folder: JobFolder) -> None:
    name, method = opened.job.metadata.name, opened.resolved.training.method
    processes = opened.resolved.topology.world_size
    device = opened.resolved.topology.device.value
    console.print(Text.assemble((name, "bold"), f": {opened.resolved.model.uri}, {method}, {processes} x {device}"))
    console.print(Text(f"state and logs: {shown(folder.root)}", style="dim"))
    for notice in opened.notices:
        console.print(Text(notice, style="dim"))
    if opened.how in _HOW:
        reason = (opened.before.reason if opened.before else None) or "unknown"
        console.print(Text(_HOW[opened.how].format(reason=reason), style="yellow"))
    if opened.how in (Beginning.CHANGED, Beginning.FRESH) and folder.previous_dir.is_dir():
        console.print(Text(f"artifacts of runs before this: {shown(folder.previous_dir)}", style="dim"))


def _show_again(console: Console, opened: Opened, options: Options, folder: JobFolder) -> int:
    console.print(Text("This job has already succeeded here; nothing was run.", style="yellow"))
    if options.status_file:
        write_atomically(options.status_file.absolute(), folder.status_file.read_text(encoding="utf-8"))
    report(console, opened.before or JobStatus(), RanHere(folder, opened.resolved.model))
    console.print(Text(f"To train again from the start: finetune run {options.file} --fresh", style="dim"))
    return ExitCode.OK


def _end(console: Console, status: JobStatus, opened: Opened, stopping: StopSignal, folder: JobFolder) -> int:
    report(console, status, RanHere(folder, opened.resolved.model))
    if status.phase is Phase.FAILED:
        console.print(Text(f"logs: {shown(folder.logs_dir)}", style="dim"))
    elif stopping.stop:
        console.print(Text("Stopped. Run the same command again to resume.", style="yellow"))
    elif status.phase is Phase.SUSPENDED:
        console.print(Text("Suspended by spec.runPolicy.suspend: set it to false and run again.", style="yellow"))
    elif status.phase is not Phase.SUCCEEDED:
        console.print(Text(status.message, style="bold red"))
    return exit_code(status, opened.cluster.last_failure())


@contextmanager
def _stopped_by_signals(stopping: StopSignal, console: Console) -> Iterator[None]:
    """Ctrl-C, a closed terminal and SIGTERM ask the run to stop; asked twice, it stops at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        stopping.request()
        if number == signal.SIGHUP:
            _detach_from_terminal()
        words = "Stopping at once." if stopping.now else "Saving what is done; Ctrl-C again stops at once."
        console.print(Text(words, style="yellow"))

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stopping.stop else handler)


def _detach_from_terminal() -> None:
    """The terminal is gone: writing to it would end the run before its checkpoint is saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
