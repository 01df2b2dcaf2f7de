"""The process that outlives nothing: it holds an instance's lock, runs its node and removes what is left.

Runs as `python -m <harness>.guardian INDEX LOCK LIFELINE`. LOCK is the open, locked lock file.
LIFELINE is the open end of a pipe, and its end is the end of the cluster; `-` runs until SIGTERM.
"""

import os
import select
import shutil
import signal
import subprocess
import sys

from . import build, cgroups, layout, network
from .layout import Instance

UNSHARE = ("unshare", "--mount", "--propagation", "slave", "--net", "--ipc", "--uts", "--pid", "--mount-proc")


def main() -> None:
    instance = Instance(int(sys.argv[1]))
    lifeline = None if sys.argv[3] == "-" else int(sys.argv[3])
    sweep(instance)
    instance.home.mkdir()
    instance.guardian_pid.write_text(str(os.getpid()))
    if lifeline is None:
        instance.detached.touch()
    cgroups.create(instance)
    ended, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(end)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    build.link_all(instance.bin, build.programs().links)
    node = start_node(instance)
    select.select([ended] if lifeline is None else [ended, lifeline], [], [])
    node.kill()
    node.wait()
    sweep(instance)


def start_node(instance: Instance) -> subprocess.Popen[bytes]:
    """Start the node in namespaces that end with this process."""
    host_network = os.open("/proc/self/ns/net", os.O_RDONLY)
    # The kernel kills unshare with its parent, this process, and the node with unshare.
    bound = ("setpriv", "--pdeathsig", "KILL", *UNSHARE, "--fork", "--kill-child")
    node = (sys.executable, "-m", f"{__package__}.node", str(instance.index), str(host_network))
    process = subprocess.Popen([*bound, *node], pass_fds=(host_network,), stdin=subprocess.DEVNULL)
    os.close(host_network)
    return process


def sweep_abandoned() -> None:
    """Remove what is left of every instance whose guardian was killed."""
    for claim in layout.abandoned():
        sweep(claim.instance)


def sweep(instance: Instance) -> None:
    """Remove what an earlier copy of this instance may have left on the host."""
    cgroups.remove(instance)
    network.leave_host(instance)
    shutil.rmtree(instance.home, ignore_errors=True)


if __name__ == "__main__":
    main()
