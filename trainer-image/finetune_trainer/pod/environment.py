"""The environment that a stage's workers get: threads that fit the CPU limit, caches in writable folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from finetune_trainer.contract import RunConfig

CGROUP: Final = Path("/sys/fs/cgroup")

_CACHES: Final = {
    "HF_HOME": "huggingface",
    "XDG_CACHE_HOME": "xdg",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
    "MPLCONFIGDIR": "matplotlib",
}

_ALWAYS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}


def cpu_limit(cgroup: Path = CGROUP) -> float | None:
    """CPUs that the container may use, by its cgroup (v2, then v1); None when unlimited."""
    quota, period = _quota(cgroup)
    return quota / period if quota > 0 and period > 0 else None


def _quota(cgroup: Path) -> tuple[int, int]:
    v2, v1 = cgroup / "cpu.max", cgroup / "cpu"
    if v2.is_file():
        quota, period = v2.read_text().split()
        return (0, 0) if quota == "max" else (int(quota), int(period))
    if (v1 / "cpu.cfs_quota_us").is_file():
        return int((v1 / "cpu.cfs_quota_us").read_text()), int((v1 / "cpu.cfs_period_us").read_text())
    return 0, 0


def threads_for_each(processes: int, cgroup: Path = CGROUP) -> int:
    """OpenMP threads for each of the pod's processes.

    Unset, a library starts one thread for each CPU of the machine; under a CPU limit that is up to 30 times slower.
    """
    cpus = float(len(os.sched_getaffinity(0)))
    limit = cpu_limit(cgroup)
    return max(1, int(min(cpus, limit or cpus) // processes))


def worker_environment(inherited: Mapping[str, str], config: RunConfig, scratch: Path) -> dict[str, str]:
    """The inherited environment, with what is missing filled in; what the user set is kept."""
    env = {**_ALWAYS, **inherited}
    env.setdefault("OMP_NUM_THREADS", str(threads_for_each(config.topology.processes_per_node)))
    if not _writable(env.get("HOME")):
        env["HOME"] = str(_folder(scratch / "home"))
        for name, folder in _CACHES.items():
            env.setdefault(name, str(_folder(scratch / "cache" / folder)))
    if not _writable(env.get("TMPDIR", "/tmp")):  # noqa: S108 - the question is whether it can be used
        env["TMPDIR"] = str(_folder(scratch / "tmp"))
    return env


def _writable(folder: str | None) -> bool:
    return folder is not None and folder != "/" and os.access(folder, os.W_OK | os.X_OK)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
