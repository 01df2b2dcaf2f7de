"""The files, in a pod's scratch folder, by which its supervisor and its workers talk."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.contract import PROGRESS_FILE


@dataclass(frozen=True)
class Handshake:
    """Where each side leaves word for the other. All names are private to one pod."""

    scratch: Path

    @property
    def stop_file(self) -> Path:
        """Exists once the stage has been asked to stop."""
        return self.scratch / "stop"

    @property
    def results(self) -> Path:
        """Folder with one Result for each local worker."""
        return self.scratch / "results"

    @property
    def progress_file(self) -> Path:
        return self.scratch / PROGRESS_FILE

    @property
    def launch_config(self) -> Path:
        """The configuration of `accelerate launch`."""
        return self.scratch / "accelerate.yaml"

    def reset(self) -> None:
        """Forget what an earlier attempt in the same scratch folder left behind."""
        self.results.mkdir(parents=True, exist_ok=True)
        self.stop_file.unlink(missing_ok=True)
        self.progress_file.unlink(missing_ok=True)
        for old in self.results.iterdir():
            old.unlink()


def replace_file(target: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. Not fsynced.

    Raises OSError when the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
