"""Where a stage's files are. The only module that knows the layout of the workspace."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from finetune_trainer.contract import PROGRESS_FILE, Env
from finetune_trainer.errors import CannotWrite, InvalidConfig

_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}
_DENIED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Paths:
    """The folders a stage was given; `from_env` reads them from the variables in `contract.Env`."""

    workspace: Path
    scratch: Path
    secrets: Path
    volumes: Path
    termination_log: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Raises `InvalidConfig` naming the variable that is missing."""
        log = environ.get(Env.TERMINATION_LOG)
        return cls(
            workspace=_folder(environ, Env.WORKSPACE),
            scratch=_folder(environ, Env.SCRATCH),
            secrets=_folder(environ, Env.SECRETS),
            volumes=_folder(environ, Env.VOLUMES),
            termination_log=Path(log) if log else None,
        )

    @property
    def dataset_dir(self) -> Path:
        """The tokenised dataset with its tokenizer, complete when it exists."""
        return self.workspace / "dataset"

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer that made the dataset, chat template included."""
        return self.dataset_dir / "tokenizer"

    @property
    def model_dir(self) -> Path:
        """The base model when it was downloaded; one that is on a volume or in a package stays there."""
        return self.workspace / "model"

    @property
    def checkpoints_dir(self) -> Path:
        return self.workspace / "checkpoints"

    @property
    def trained_dir(self) -> Path:
        """The train stage's final weights: an adapter's folder, or a whole model's."""
        return self.workspace / "trained"

    @property
    def progress_file(self) -> Path:
        return self.scratch / PROGRESS_FILE

    @property
    def downloads_dir(self) -> Path:
        """Datasets as they were fetched."""
        return self.scratch / "downloads"

    @property
    def artifact_dir(self) -> Path:
        """Where publish puts the artifact together before it uploads it."""
        return self.scratch / "artifact"

    def secret_dir(self, name: str | None) -> Path | None:
        """The folder of a Secret: one file for each of its keys."""
        return None if name is None else self.secrets / name


def _folder(environ: Mapping[str, str], variable: Env) -> Path:
    value = environ.get(variable)
    if not value:
        raise InvalidConfig(f"the environment variable {variable} is not set")
    return Path(value)


def is_full(error: BaseException) -> bool:
    """Whether it is our own disk that refuses, in a call that reads from elsewhere and writes here."""
    return isinstance(error, OSError) and error.errno in {*_NO_SPACE, errno.EROFS}


@contextmanager
def writing(what: str, field: str | None = None) -> Iterator[None]:
    """Turns the system's refusal to write into `CannotWrite`, naming `what` was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            advice = "enlarge the volume, or remove files from it"
            raise CannotWrite(f"no space left for {what}", field=field, advice=advice) from error
        if error.errno in _DENIED:
            raise CannotWrite(
                f"not allowed to write {what}: {error.strerror}",
                field=field,
                advice="make it writable for the pod's user (fsGroup, access mode)",
            ) from error
        raise


@contextmanager
def trying_to_write(what: str, field: str) -> Iterator[None]:
    """Like `writing`, for a block that does nothing but write: every refusal of the system is `CannotWrite`."""
    try:
        with writing(what, field):
            yield
    except OSError as error:
        raise CannotWrite(f"cannot write {what}: {error.strerror}", field=field, advice="name a folder") from error


@contextmanager
def replacing_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place, readable by every user, when the block ends well."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with writing(str(final)):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            make_readable(temporary)
            if final.exists():
                old = final.with_name(f".{final.name}.{os.getpid()}.old")
                final.rename(old)
                temporary.rename(final)
                shutil.rmtree(old)
            else:
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def make_readable(folder: Path) -> None:
    """Lets other users of a shared volume read what is below `folder`, and its group replace it.

    safetensors writes files with mode 0600, temporary folders have 0700.
    """
    folder.chmod(0o775)
    for path in folder.rglob("*"):
        path.chmod(0o775 if path.is_dir() else 0o664)
