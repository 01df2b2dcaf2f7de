"""A copy of every checkpoint in object storage (or on another volume), for workspaces that go with their pod."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.checksums import files_below
from finetune_trainer.contract import CheckpointPolicy
from finetune_trainer.training.manifest import MANIFEST
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.folder import Folder, open_folder
from finetune_trainer.workspace import Paths


class CheckpointMirror:
    """Checkpoints below `checkpoints.uri`. The manifest goes up last and down first: without it there is nothing."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @classmethod
    def of(cls, policy: CheckpointPolicy, paths: Paths) -> CheckpointMirror | None:
        if policy.uri is None:
            return None
        address = Address(policy.uri, "spec.checkpoints.uri", "output", paths.secret_dir(policy.secret))
        return cls(open_folder(address, paths))

    def uri_of(self, name: str) -> str:
        return f"{self._folder.uri.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """Names of the checkpoints whose manifest is there."""
        return {file.removesuffix(f"/{MANIFEST}") for file in self._folder.sizes() if file.endswith(f"/{MANIFEST}")}

    def store(self, folder: Path, name: str) -> None:
        self._folder.remove(f"{name}/{MANIFEST}")
        for file, path in files_below(folder).items():
            if file != MANIFEST:
                self._folder.put(path, f"{name}/{file}")
        self._folder.put(folder / MANIFEST, f"{name}/{MANIFEST}")

    def fetch(self, name: str, folder: Path) -> None:
        for file in self._files(name):
            self._folder.get(f"{name}/{file}", folder / file)

    def remove(self, name: str) -> None:
        self._folder.remove(f"{name}/{MANIFEST}")
        for file in self._files(name):
            self._folder.remove(f"{name}/{file}")

    def _files(self, name: str) -> list[str]:
        return [file.removeprefix(f"{name}/") for file in self._folder.sizes() if file.startswith(f"{name}/")]
