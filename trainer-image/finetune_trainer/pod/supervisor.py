"""The first process of a stage's pod.

It starts the stage as a child with its own process group, passes the child's output on, serves progress, turns
SIGTERM and SIGINT into a stop file, reaps orphans, and has the last word: the Result and the exit code. It never
imports torch: it is up in a fraction of a second and stays small beside the workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Final

from finetune_trainer import log
from finetune_trainer.contract import PROGRESS_PORT, Env, ExitCode, Result, RunConfig, Stage
from finetune_trainer.errors import Internal, StageError
from finetune_trainer.pod.environment import worker_environment
from finetune_trainer.pod.handshake import Handshake
from finetune_trainer.pod.output import Relay
from finetune_trainer.pod.report import Reporter, read_progress, serve
from finetune_trainer.pod.result import collect, of_silence, termination_message, with_checkpoints
from finetune_trainer.pod.runconfig import node_rank, read_config
from finetune_trainer.workspace import Paths

GRACE_SECONDS: Final = 25
"""Kubernetes sends SIGKILL 30 s after SIGTERM unless the pod says otherwise."""

_AWAITED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_MODULES: Final = {
    Stage.PREPARE: "finetune_trainer.stages",
    Stage.TRAIN: "finetune_trainer.pod.launch",
    Stage.PUBLISH: "finetune_trainer.stages",
}


@dataclass(frozen=True)
class Ending:
    """How the child ended: its exit status (negative: the signal that killed it), and whether it had been told to."""

    status: int
    stop_requested: bool
    out_of_time: bool


def hold_signals() -> None:
    """Let the signals that the supervisor acts on wait until it asks for them.

    To be called before anything else: until a process with id 1 has said otherwise, the kernel drops its SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)


def run(stage: Stage, environ: Mapping[str, str]) -> int:
    """Run one stage to its end; the exit code of the pod."""
    log.configure(stage=stage.value)
    try:
        config = read_config(stage, environ)
        log.configure(config, rank=node_rank(environ))
        result = _supervise(config, Paths.from_env(environ), environ)
    except StageError as error:
        result = error.result(stage)
    _say(result)
    _leave(result, environ)
    return result.exit_code


def _supervise(config: RunConfig, paths: Paths, environ: Mapping[str, str]) -> Result:
    files = Handshake(paths.scratch)
    paths.scratch.mkdir(parents=True, exist_ok=True)
    files.reset()
    Reporter(config.stage, files.progress_file).notify("starting")
    relay = Relay(sys.stdout, raw=log.on_console())
    env = worker_environment(environ, config, paths.scratch)
    if log.on_console():
        env[log.CONSOLE] = "1"
    child = _spawn(config.stage, env, relay.write_end)
    relay.start()
    with contextlib.ExitStack() as stack:
        stack.callback(_kill_group, child)
        port = _port(config, environ)
        if port:
            stack.callback(_serve(files.progress_file, port).shutdown)
        ending = _attend(child, files, config.stage, float(environ.get(Env.GRACE_SECONDS) or GRACE_SECONDS))
    judged = _judge(config.stage, ending, collect(files.results), relay.tail())
    return with_checkpoints(judged, read_progress(files.progress_file))


def _spawn(stage: Stage, env: Mapping[str, str], output: int) -> int:
    """Start the stage's module as a process group of its own, which a terminal's Ctrl-C does not reach."""
    command = [sys.executable, "-m", _MODULES[stage], stage.value]
    duplicates = [(os.POSIX_SPAWN_DUP2, output, descriptor) for descriptor in (1, 2)]
    return os.posix_spawn(
        sys.executable, command, env, file_actions=duplicates, setpgroup=0, setsigmask=(), setsigdef=_AWAITED
    )


def _port(config: RunConfig, environ: Mapping[str, str]) -> int:
    """Progress is served where rank 0 is."""
    rank = node_rank(environ) if config.stage is Stage.TRAIN else 0
    return int(environ.get(Env.PROGRESS_PORT) or PROGRESS_PORT) if rank == 0 else 0


def _serve(progress_file: Path, port: int) -> ThreadingHTTPServer:
    try:
        return serve(progress_file, port)
    except OSError as error:
        raise Internal(f"cannot serve progress on port {port}: {error.strerror}") from error


def _attend(child: int, files: Handshake, stage: Stage, grace: float) -> Ending:
    """Wait for the child to end, pass on the wish to stop, and end it when the grace is over."""
    deadline: float | None = None
    out_of_time = False
    while (status := _reap(child)) is None:
        timeout = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        caught = signal.sigtimedwait(_AWAITED, timeout)
        if caught is None and deadline is not None and time.monotonic() >= deadline:
            out_of_time = True
            _kill_group(child)
            deadline = time.monotonic() + grace
        elif caught is not None and caught.si_signo != signal.SIGCHLD and deadline is None:
            log.logger().info("asked to stop", signal=signal.Signals(caught.si_signo).name, grace_seconds=grace)
            deadline = time.monotonic() + grace
            files.stop_file.touch()
            if stage is not Stage.TRAIN:
                os.kill(child, signal.SIGTERM)
    return Ending(status, stop_requested=deadline is not None, out_of_time=out_of_time)


def _reap(child: int) -> int | None:
    """Collect every process that has ended, orphans too; the child's exit status once it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            return None


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _judge(stage: Stage, ending: Ending, left: Result | None, tail: list[str]) -> Result:
    """The stage's Result, from what its workers left and how they ended."""
    if ending.out_of_time and (left is None or left.exit_code is not ExitCode.OK):
        return Result(
            stage=stage,
            exit_code=ExitCode.INTERRUPTED,
            message="asked to stop, and ended before the work was saved: the grace period was too short",
            advice="raise terminationGracePeriodSeconds in spec.podTemplate; the last checkpoint is kept",
        )
    if left is None and ending.stop_requested and ending.status == -signal.SIGTERM:
        return Result(stage=stage, exit_code=ExitCode.INTERRUPTED, message="asked to stop before it had begun")
    silent = of_silence(stage, ending.status, tail)
    if left is None:
        return silent
    if left.exit_code is ExitCode.PEER_LOST and silent.exit_code is ExitCode.KILLED:
        return silent
    return left


def _say(result: Result) -> None:
    event = log.logger().info if result.exit_code in {ExitCode.OK, ExitCode.INTERRUPTED} else log.logger().error
    event("stage ended", exit=result.exit_name, message=result.message, field=result.field, advice=result.advice)


def _leave(result: Result, environ: Mapping[str, str]) -> None:
    """Put the Result where Kubernetes looks for it."""
    target = environ.get(Env.TERMINATION_LOG)
    if target:
        Path(target).write_text(termination_message(result))
