"""What this machine has to train on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


def gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The NVIDIA GPUs that may be used, as CUDA_VISIBLE_DEVICES names them. Imports no torch."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name for name in chosen.split(",") if name.strip() and name.strip() != "-1")
    return tuple(str(number) for number in range(_count_gpus()))


def _count_gpus() -> int:
    program = shutil.which("nvidia-smi")
    if program is not None:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        if listed.returncode == 0:
            return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def threads(environ: Mapping[str, str]) -> int:
    """CPU threads to share out among the processes: OMP_NUM_THREADS when set, else the CPUs this may use."""
    wanted = environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, _cgroup_cpus() or affinity))


def _cgroup_cpus() -> int | None:
    """Whole CPUs that a container's limit leaves; None without one."""
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))
