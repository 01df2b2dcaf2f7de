"""A copy of every checkpoint in object storage (or on another volume), for workspaces that go with their pod."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finetune_trainer.contract import CheckpointPolicy
from finetune_trainer.manifest import MANIFEST
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.folder import Folder, open_folder
from finetune_trainer.uris.transfer import remove_all
from finetune_trainer.workspace import Paths


class Mirror:
    """Checkpoints below `checkpoints.uri`. The manifest goes up last and down first: without it there is nothing."""

    def __init__(self, address: Address, paths: Paths) -> None:
        self._address = address
        self._paths = paths

    @classmethod
    def of(cls, policy: CheckpointPolicy, paths: Paths) -> Mirror | None:
        if policy.uri is None:
            return None
        return cls(Address(policy.uri, "spec.checkpoints.uri", "output", paths.secret_dir(policy.secret)), paths)

    def uri_of(self, name: str) -> str:
        return f"{self._address.uri.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """Names of the checkpoints whose manifest is there."""
        files = open_folder(self._address, self._paths).sizes()
        return {name.partition("/")[0] for name in files if name.partition("/")[2] == MANIFEST}

    def store(self, folder: Path, name: str) -> None:
        target = self._folder(name)
        target.remove(MANIFEST)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != folder / MANIFEST:
                target.put(path, path.relative_to(folder).as_posix())
        target.put(folder / MANIFEST, MANIFEST)

    def fetch(self, name: str, folder: Path) -> None:
        source = self._folder(name)
        for file in source.sizes():
            source.get(file, folder / file)

    def forget(self, name: str) -> None:
        target = self._folder(name)
        target.remove(MANIFEST)
        remove_all(target)

    def _folder(self, name: str) -> Folder:
        return open_folder(replace(self._address, uri=self.uri_of(name)), self._paths)
