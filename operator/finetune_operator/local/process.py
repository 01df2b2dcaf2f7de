"""One pod's process: started behind a process guard, asked to stop, killed, polled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from finetune_operator.local.podspec import Launch

_GUARD: Final = Path(__file__).with_name("process_guard.py")
_GUARD_SECONDS: Final = 10.0
ATTEMPT_MARK: Final = "=== "
"""Begins the line in a log that tells which pod wrote what follows."""


class PodProcess:
    """A running pod. Its output is appended to `log`."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self.launch = launch
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, self._lifeline = os.pipe()
        with log.open("ab") as output:
            self.log_start = output.tell()
            command = [sys.executable, "-I", str(_GUARD), str(ours), *launch.argv]
            self._guard = subprocess.Popen(  # noqa: S603
                command,
                env=dict(launch.env),
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(ours,),
                start_new_session=True,
            )
        os.close(ours)
        self._kill_at: float | None = None

    def poll(self) -> int | None:
        """The exit code once it has ended. Kills it when its time to stop has run out."""
        code = self._guard.poll()
        if code is None and self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.kill()
            code = self._guard.poll()
        if code is not None:
            self._let_go()
            return code if code >= 0 else 128 - code
        return None

    def terminate(self) -> None:
        """SIGTERM, and SIGKILL when it is still there after its grace period. Asking twice changes nothing."""
        if self._kill_at is None and self._guard.poll() is None:
            self._kill_at = time.monotonic() + self.launch.grace_seconds
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and everything it started, at once."""
        self._let_go()
        try:
            self._guard.wait(_GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def _let_go(self) -> None:
        """Closes the lifeline: the process guard takes it for the runner's end."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def last_words(self, longest: int = 2048) -> str:
        """The end of what it wrote, as `FallbackToLogsOnError` would have it."""
        with self.log.open("rb") as output:
            output.seek(0, os.SEEK_END)
            output.seek(max(self.log_start, output.tell() - longest))
            return output.read().decode(errors="replace").strip()
