"""The cgroups of one instance's pods: made before the kubelet starts, removed with what is in them."""

import os
import signal
import time
from pathlib import Path

from .layout import Instance

MOUNT = Path("/sys/fs/cgroup")
GONE_SECONDS = 10.0


def create(instance: Instance) -> None:
    """Make the instance's cgroup in every hierarchy of the host."""
    for hierarchy in _hierarchies():
        group = hierarchy / instance.name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and (hierarchy / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def remove(instance: Instance) -> None:
    """End whatever still runs in the instance's cgroups and remove them."""
    groups = [hierarchy / instance.name for hierarchy in _hierarchies()]
    deadline = time.monotonic() + GONE_SECONDS
    while any(group.exists() for group in groups):
        for group in groups:
            _empty(group)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes in the cgroup {instance.name} do not end")
        time.sleep(0.02)


def _hierarchies() -> list[Path]:
    """The mounted hierarchies: one for cgroup v2, one for each controller for v1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [path for path in MOUNT.iterdir() if path.is_dir() and not path.is_symlink()]


def _empty(group: Path) -> None:
    """Kill what is in a cgroup, and remove the folders that are empty by now."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            Path(folder).rmdir()
        except OSError:
            continue
