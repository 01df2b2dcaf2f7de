"""One line on standard error for each step of long work, with the time it took."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import CommandFailedError

HEARTBEAT_SECONDS = 30.0


def say(message: str) -> None:
    """Print one line of progress; standard output stays free for what a caller evaluates."""
    sys.stderr.write(f"[cluster] {message}\n")
    sys.stderr.flush()


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    started = time.monotonic()
    say(f"{what} ...")
    yield
    say(f"{what}: {time.monotonic() - started:.1f} s")


def run(  # noqa: PLR0913 - the options of subprocess, each by its name
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    what: str | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a command to its end and return its standard output.

    `text` is its standard input, `pass_fds` the open files it inherits.
    With `what`, a line says every half minute that it still runs.
    Raises CommandFailedError with the command's own words.
    """
    argv = [str(part) for part in command]
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=tuple(pass_fds),
    )
    started = time.monotonic()
    pending = text
    while True:
        try:
            out, err = process.communicate(pending, timeout=HEARTBEAT_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pending = None
            if what:
                say(f"{what}: {time.monotonic() - started:.0f} s so far")
    if process.returncode:
        raise CommandFailedError(argv, process.returncode, out, err)
    return out
