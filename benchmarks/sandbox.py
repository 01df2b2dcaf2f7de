"""Namespaces of its own for a benchmark: nothing can be reached but its own loopback, and all ends with it.

Ports and paths may then be fixed ones (webhook certificates have a fixed folder below /tmp), and /tmp is in memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_INSIDE = "FINETUNE_BENCHMARK_INSIDE"
_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def enter(module: str) -> None:
    """Run `python -m module` again inside, with the same arguments; returns only there."""
    if os.environ.get(_INSIDE):
        _furnish()
        return
    if os.geteuid() != 0:
        sys.exit("this benchmark runs in network and mount namespaces of its own: start it as root")
    command = [*_UNSHARE, sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe(command[0], command, os.environ | {_INSIDE: "1"})  # noqa: S606 - no shell is wanted


def _furnish() -> None:
    # The first process of a namespace ignores what it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)  # noqa: S108 - nobody else sees this one
