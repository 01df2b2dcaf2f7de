"""An address in the job's spec, and the words to use when it leads nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_trainer.contract import DatasetSource, ModelSource
from finetune_trainer.errors import InvalidConfig, NotFound
from finetune_trainer.workspace import Paths

Kind = Literal["model", "dataset", "output", "checkpoint"]


@dataclass(frozen=True)
class DatasetPart:
    """A split of a configuration; without a configuration it is of the only one, or the default."""

    config: str | None
    split: str


@dataclass(frozen=True)
class Address:
    """A URI together with where the spec names it and what is needed to get there."""

    uri: str
    field: str
    kind: Kind
    secret: Path | None = None
    """Folder with the credentials, one file a key."""
    revision: str | None = None
    part: DatasetPart | None = None
    """Of a dataset: which part of a repository of the Hub."""

    @classmethod
    def of_model(cls, source: ModelSource, paths: Paths, pinned: str | None = None) -> Address:
        """`pinned` is the revision that the prepare stage saw; every later stage must see the same."""
        secret = paths.secret_dir(source.secret)
        return cls(source.uri, "spec.model.uri", "model", secret, pinned or source.revision)

    @classmethod
    def of_dataset(cls, source: DatasetSource, index: int, paths: Paths) -> Address:
        secret = paths.secret_dir(source.secret)
        part = DatasetPart(source.config, source.split)
        return cls(source.uri, f"spec.datasets[{index}].uri", "dataset", secret, source.revision, part)

    def sibling(self, name: str) -> str:
        """The path of another field of what the address belongs to."""
        return f"{self.field.removesuffix('.uri')}.{name}"

    @property
    def scheme(self) -> str:
        scheme, separator, _ = self.uri.partition("://")
        if not separator:
            raise InvalidConfig(
                f"`{self.uri}` is not a URI", field=self.field, advice="start it with hf://, s3://, ..."
            )
        return scheme

    @property
    def rest(self) -> str:
        """What follows the scheme, without a trailing slash. Raises `InvalidConfig` for a path that climbs."""
        rest = self.uri.partition("://")[2].rstrip("/")
        if ".." in rest.split("/"):
            raise InvalidConfig(f"`{self.uri}` must not contain `..`", field=self.field)
        if not rest:
            raise InvalidConfig(f"`{self.uri}` names nothing", field=self.field)
        return rest

    def credential(self, key: str) -> str | None:
        """One key of the address's Secret; None when it has none. Raises `NotFound` when the Secret is not there."""
        if self.secret is None:
            return None
        if not self.secret.is_dir():
            raise NotFound(
                f"the Secret `{self.secret.name}` for `{self.uri}` is not mounted",
                field=self.field.removesuffix(".uri") + ".secretRef",
                advice="create the Secret in the job's namespace",
            )
        file = self.secret / key
        return file.read_text().strip() if file.is_file() else None

    def missing(self, why: str = "does not exist", advice: str = "check the address") -> NotFound:
        return NotFound(f"{self.kind} `{self.uri}` {why}", field=self.field, advice=advice)

    def denied(self, advice: str) -> NotFound:
        return NotFound(f"access to {self.kind} `{self.uri}` is denied", field=self.field, advice=advice)


def is_repository(address: Address) -> bool:
    """Whether it names a whole repository of the Hub, not a file or folder in one."""
    return address.scheme == "hf" and len(repository_and_path(address)[1]) == 0


def repository_and_path(address: Address) -> tuple[str, str]:
    """Of an `hf://` address."""
    parts = address.rest.removeprefix("datasets/").removeprefix("models/").split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])
