"""Where a local run keeps things: one folder for each job, one for the claims that jobs share."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetune_trainer.contract import Stage

DEFAULT_STATE_DIR: Final = Path(".finetune")
SHARED_CLAIMS: Final = "_volumes"
"""Claims that were made for no job; no job can be called like this."""
_VOLUMES: Final = "volumes"


class AlreadyRunningError(Exception):
    """Another runner holds this job's lock."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"this job is already running here (process {owner})" if owner else "already running here")


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file in one step: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@dataclass(frozen=True)
class JobFolder:
    """The state of one job: `<state dir>/<namespace>/<name>/`."""

    root: Path

    @classmethod
    def of(cls, state_dir: Path, namespace: str, name: str) -> JobFolder:
        return cls((state_dir / namespace / name).absolute())

    @property
    def status_file(self) -> Path:
        """The status document, as the job would carry it in a cluster."""
        return self.root / "status.json"

    @property
    def job_file(self) -> Path:
        """The job as it was run last, for those that resume from it."""
        return self.root / "job.json"

    @property
    def resolved_file(self) -> Path:
        """The spec with its template and every default."""
        return self.root / "resolved.json"

    @property
    def cluster_file(self) -> Path:
        """What a cluster would know: the Jobs and their pods."""
        return self.root / "cluster.json"

    @property
    def volumes_dir(self) -> Path:
        return self.root / _VOLUMES

    @property
    def shared_claims_dir(self) -> Path:
        return self.root.parent / SHARED_CLAIMS

    @property
    def configs_dir(self) -> Path:
        return self.root / "configs"

    @property
    def pods_dir(self) -> Path:
        """A private folder for each running pod; it goes when the pod ends."""
        return self.root / "pods"

    @property
    def logs_dir(self) -> Path:
        return self.root / "logs"

    @property
    def previous_dir(self) -> Path:
        """Artifacts of finished runs that a newer run took the place of."""
        return self.root / "previous"

    def uid(self) -> str:
        """The job's uid: made once, it stays as long as the folder does."""
        file = self.root / "uid"
        if not file.is_file():
            write_atomically(file, str(uuid.uuid4()))
        return file.read_text(encoding="utf-8")

    def log(self, stage: Stage, index: int) -> Path:
        return self.logs_dir / f"{stage.value}-{index}.log"

    def config(self, name: str) -> Path:
        """A ConfigMap that the operator made for this job: one file for each key."""
        return self.configs_dir / name

    def own_claim(self, name: str) -> Path:
        """A PersistentVolumeClaim that was made for this job."""
        return self.volumes_dir / name

    def neighbour(self, name: str) -> JobFolder:
        """The job of this name in the same namespace."""
        return JobFolder(self.root.parent / name)

    def claim(self, name: str) -> Path:
        """The claim's folder: where it was made for a job of the namespace, this one first, else one for all."""
        made = (self.own_claim(name), *sorted(self.root.parent.glob(f"[!_]*/{_VOLUMES}/{name}")))
        return next((folder for folder in made if folder.is_dir()), self.shared_claims_dir / name)

    def is_locked(self) -> bool:
        """Whether a process holds the job, which is to say: runs it."""
        try:
            with self._lock_file.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def _lock_file(self) -> Path:
        return self.root / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the job for this process; the system lets go of it when the process ends, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        _keep_out_of_git(self.root.parent.parent)
        with self._lock_file.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise AlreadyRunningError(lock.read().strip()) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield


def _keep_out_of_git(state_dir: Path) -> None:
    ignore = state_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def shown(path: Path) -> str:
    """The path as a person would type it: relative when it lies below the current directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
