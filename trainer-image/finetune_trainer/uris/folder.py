"""Folders of files, wherever they are: outputs, handed-over models, checkpoints and their mirrors."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Final, Protocol

from finetune_trainer.atomic import replacing_file, sync
from finetune_trainer.checksums import file_sha256
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.uris import s3
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.local import path_of
from finetune_trainer.workspace import Paths, trying_to_write, writing

_PROBE: Final = ".finetune-probe"
_CHUNK: Final = 8 << 20


class Folder(Protocol):
    """Names are relative paths with `/`. A file is there whole or not at all."""

    uri: str

    def probe(self) -> None:
        """Writes and removes a small file. Raises `NotFound` or `CannotWrite`."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes of every file; empty when the folder does not exist."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file's content; None when it does not exist."""
        ...

    def sha256(self, name: str) -> str:
        """Digest of what the folder really holds."""
        ...

    def put(self, local: Path, name: str) -> None: ...

    def get(self, name: str, local: Path) -> None: ...

    def remove(self, name: str) -> None:
        """Removes a file; one that does not exist is as good as removed."""
        ...


def open_folder(address: Address, paths: Paths) -> Folder:
    """The folder that a `file://`, `pvc://` or `s3://` address names. Raises `InvalidConfig` for other schemes."""
    match address.scheme:
        case "s3":
            return S3Folder(address)
        case "file" | "pvc":
            return LocalFolder(address, path_of(address, paths))
        case scheme:
            raise InvalidConfig(
                f"{address.kind}s cannot be at `{scheme}://`",
                field=address.field,
                advice="use s3://, pvc:// or file://",
            )


class LocalFolder:
    def __init__(self, address: Address, root: Path) -> None:
        self.uri = address.uri
        self._address = address
        self._root = root

    def probe(self) -> None:
        with trying_to_write(f"`{self.uri}`", self._address.field):
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f"{_PROBE}.{os.getpid()}"
            probe.write_bytes(b"finetune")
            probe.unlink()

    def sizes(self) -> dict[str, int]:
        return {
            path.relative_to(self._root).as_posix(): path.stat().st_size
            for path in self._root.rglob("*")
            if path.is_file()
        }

    def read(self, name: str) -> bytes | None:
        path = self._root / name
        return path.read_bytes() if path.is_file() else None

    def sha256(self, name: str) -> str:
        return file_sha256(self._root / name)

    def put(self, local: Path, name: str) -> None:
        target = self._root / name
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing_file(target) as temporary:
                shutil.copyfile(local, temporary)
                temporary.chmod(0o664)
                sync(temporary)

    def get(self, name: str, local: Path) -> None:
        with writing(str(local)):
            local.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._root / name, local)

    def remove(self, name: str) -> None:
        with self._writing():
            (self._root / name).unlink(missing_ok=True)
            folder = (self._root / name).parent
            while folder != self._root and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent

    def _writing(self) -> Any:
        return writing(f"`{self.uri}`", self._address.field)


class S3Folder:
    """An upload of one object is atomic: a reader sees all of it or none."""

    def __init__(self, address: Address) -> None:
        self.uri = address.uri
        self._address = address
        self._root = address.rest
        self._store = s3.connect(address)

    def probe(self) -> None:
        with s3.explaining(self._address):
            self._store.pipe_file(f"{self._root}/{_PROBE}", b"finetune")
            self._store.rm_file(f"{self._root}/{_PROBE}")

    def sizes(self) -> dict[str, int]:
        with s3.explaining(self._address):
            found = self._store.find(self._root, detail=True)
        prefix = self._root + "/"
        return {key.removeprefix(prefix): info["size"] for key, info in found.items() if key.startswith(prefix)}

    def read(self, name: str) -> bytes | None:
        with s3.explaining(self._address):
            try:
                return bytes(self._store.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with s3.explaining(self._address), self._store.open(f"{self._root}/{name}", "rb", block_size=_CHUNK) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def put(self, local: Path, name: str) -> None:
        with s3.explaining(self._address):
            self._store.put_file(str(local), f"{self._root}/{name}")

    def get(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        with s3.explaining(self._address):
            self._store.get_file(f"{self._root}/{name}", str(local))

    def remove(self, name: str) -> None:
        with s3.explaining(self._address):
            try:
                self._store.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return
