"""Stands between the runner and one pod's process, so that nothing of it outlives either of them.

Run as a script: `python -I process_guard.py LIFELINE COMMAND...`. LIFELINE is a descriptor of a pipe whose other
end only the runner holds: it reads as closed once the runner is gone, however it went. SIGTERM is passed
on to the command. When the command ends, what it left running is killed, and its exit code is the
process guard's (128 + N for signal N). Standard library only: it starts in some 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 5.0
"""Seconds that the kernel may take over killed processes."""


def main(arguments: list[str]) -> int:
    """Runs the command to its end, or to the runner's."""
    lifeline, command = int(arguments[0]), arguments[1:]
    _adopt_orphans()
    wakeup, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    signal.signal(signal.SIGTERM, _wake)
    os.set_inheritable(lifeline, False)
    try:
        child = subprocess.Popen(command, start_new_session=True)  # noqa: S603
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    code = _wait(child, lifeline, wakeup)
    _kill_descendants(child.pid)
    return code


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Exists so that the signal's number is written to the wake-up pipe."""


def _wait(child: subprocess.Popen[bytes], lifeline: int, wakeup: int) -> int:
    while True:
        readable, _, _ = select.select([lifeline, wakeup], [], [])
        if lifeline in readable:
            return 128 + signal.SIGKILL
        if signal.SIGTERM in os.read(wakeup, 64):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        code = child.poll()
        if code is not None:
            return code if code >= 0 else 128 - code
        _reap_adopted(child.pid)


def _adopt_orphans() -> None:
    """Makes processes whose parent ends children of the process guard instead of init's (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_adopted(child: int) -> None:
    for pid in _children().get(os.getpid(), []):
        if pid != child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _kill_descendants(child: int) -> None:
    """Kills the command's process group and, where /proc tells, whatever left that group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        left = _descendants(os.getpid())
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    children, found, queue = _children(), [], [pid]
    while queue:
        found.extend(below := children.get(queue.pop(), []))
        queue.extend(below)
    return found


def _children() -> dict[int, list[int]]:
    """Every process by its parent; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    return children


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
