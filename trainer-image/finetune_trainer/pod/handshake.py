"""The files, in a pod's scratch folder, by which its supervisor and its workers talk."""

from __future__ import annotations

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
        """Remove what an earlier attempt in the same scratch folder left behind."""
        self.results.mkdir(parents=True, exist_ok=True)
        self.stop_file.unlink(missing_ok=True)
        self.progress_file.unlink(missing_ok=True)
        for old in self.results.iterdir():
            old.unlink()
