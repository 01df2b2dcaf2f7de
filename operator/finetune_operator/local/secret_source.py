"""Where a local run finds the Secrets that a job names: a folder, else the process environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.plan.model.observed import Presence


@dataclass(frozen=True)
class SecretFolder:
    """`--secrets DIR`: a folder for each Secret, a file for each of its keys."""

    root: Path

    def presence(self, names: Iterable[str]) -> Mapping[str, Presence]:
        return {name: Presence.PRESENT if self.folder(name).is_dir() else Presence.MISSING for name in names}

    def folder(self, name: str) -> Path:
        return self.root.absolute() / name

    def notice(self, _names: Iterable[str]) -> None:
        """What to tell the user: nothing, the folder was their choice."""


@dataclass(frozen=True)
class SecretsFromEnvironment:
    """Without `--secrets`: Secrets are empty folders, and the libraries read AWS_*, HF_TOKEN from the environment."""

    empty: Path

    def presence(self, names: Iterable[str]) -> Mapping[str, Presence]:
        return dict.fromkeys(names, Presence.PRESENT)

    def folder(self, name: str) -> Path:
        return self.empty / name

    def notice(self, names: Iterable[str]) -> str | None:
        """Which Secrets are taken from the environment, and what to do about it."""
        listed = ", ".join(sorted(names))
        if not listed:
            return None
        return (
            f"Secrets ({listed}): using this shell's environment (AWS_*, HF_TOKEN); --secrets DIR reads files instead"
        )


SecretSource = SecretFolder | SecretsFromEnvironment
