"""Checkpoints: sealed by a manifest, kept to a number, resumed from the newest that verifies.

A checkpoint is a folder `checkpoint-STEP`. It is written under another name, sealed (files synced, manifest last)
and renamed, so a folder of that name is whole unless the disk or another process has damaged it later; the
manifest's digests find that out before anything is resumed from it.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from finetune_trainer import log
from finetune_trainer.atomic import sync
from finetune_trainer.contract import CheckpointRef
from finetune_trainer.training import manifest
from finetune_trainer.training.checkpoint_mirror import CheckpointMirror
from finetune_trainer.training.manifest import Facts, Manifest, TornError
from finetune_trainer.workspace import make_readable, writing

T = TypeVar("T")

_NAME: Final = re.compile(r"checkpoint-(\d+)")
_FIELD: Final = "spec.workspace"


class Peers(Protocol):
    """What checkpointing needs to know of the gang."""

    @property
    def is_main_process(self) -> bool: ...
    @property
    def is_local_main_process(self) -> bool: ...
    def gather(self, mine: T) -> list[T]: ...


class CheckpointStore:
    """The checkpoints of one run, as seen by one rank. Methods that say so must be called by every rank at once."""

    def __init__(  # noqa: PLR0913 - each is one fact about the run
        self,
        root: Path,
        peers: Peers,
        *,
        run: str,
        keep: int,
        mirror: CheckpointMirror | None,
        notify: Callable[[str], None],
    ) -> None:
        self._root = root
        self._peers = peers
        self._run = run
        self._keep = keep
        self._mirror = mirror
        self._notify = notify
        self._refs: dict[int, CheckpointRef] = {}
        with writing("checkpoints", _FIELD):
            root.mkdir(parents=True, exist_ok=True)

    @property
    def refs(self) -> tuple[CheckpointRef, ...]:
        """What is known of the checkpoints, oldest first, torn ones included."""
        return tuple(self._refs[step] for step in sorted(self._refs))

    @property
    def newest_step(self) -> int | None:
        """Step of the newest whole checkpoint that this run has written or resumed from."""
        return max((ref.step for ref in self._refs.values() if ref.verified), default=None)

    def folder(self, step: int) -> Path:
        return self._root / f"checkpoint-{step}"

    def partial(self, step: int) -> Path:
        """The folder that a checkpoint is put together in. The first rank writes all of it."""
        folder = self._root / f".partial-{step}" / f"checkpoint-{step}"
        if self._peers.is_main_process:
            with writing("checkpoints", _FIELD):
                shutil.rmtree(folder.parent, ignore_errors=True)
                folder.mkdir(parents=True)
        return folder

    def abandon(self, step: int) -> None:
        """Remove what a checkpoint that could not be written has left."""
        if self._peers.is_main_process:
            shutil.rmtree(self._root / f".partial-{step}", ignore_errors=True)

    def seal(self, facts: Facts) -> None:
        """Every rank: make the partial checkpoint of this step a real one, copy it, and let old ones go."""
        if self._peers.is_main_process:
            with writing("checkpoints", _FIELD):
                self._publish(facts)
                self._rotate()
        self._refs = self._peers.gather(self._refs)[0]

    def newest(self) -> tuple[Path, Facts] | None:
        """Every rank: the newest checkpoint that every pod has, whole and of this run; None when there is none."""
        unusable: set[int] = set()
        while True:
            offered = self._peers.gather(self._steps() - unusable)
            common = set.intersection(*offered)
            if not common:
                return None
            step = max(common)
            mine = self._examine(step) if self._peers.is_local_main_process else None
            findings = [finding for finding in self._peers.gather(mine) if finding is not None]
            trouble = next((finding for finding in findings if isinstance(finding, str)), None)
            if trouble is None:
                found = next(finding for finding in findings if isinstance(finding, Manifest))
                self._refs[step] = self._ref(found)
                return self.folder(step), found.facts
            unusable.add(step)
            self._skip(step, trouble)

    def holds_copy(self, step: int) -> bool:
        """Whether this pod has the copy of another job's checkpoint of this step."""
        try:
            return manifest.read(self.folder(step)).facts.origin is not None
        except TornError:
            return False

    def adopt(self, step: int, fetch: Callable[[Path], Manifest]) -> None:
        """One rank of a pod: put another job's checkpoint, which `fetch` copies and verifies, among this run's own.

        Raises TornError.
        """
        folder = self.folder(step)
        partial = self._root / f".partial-{step}-{platform.node()}" / folder.name
        with writing("checkpoints", _FIELD):
            shutil.rmtree(partial.parent, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                fetched = fetch(partial)
                ours = fetched.facts.model_copy(update={"run": self._run})
                make_readable(partial)
                manifest.write(partial, Manifest(facts=ours, files=fetched.files))
                self._put(partial, folder)
            finally:
                shutil.rmtree(partial.parent, ignore_errors=True)

    def _skip(self, step: int, trouble: str) -> None:
        self._refs[step] = CheckpointRef(step=step, uri=self._uri(step), verified=False, bytes=0)
        if self._peers.is_main_process:
            log.logger().warning("checkpoint skipped", step=step, reason=trouble)
            self._notify(f"skipped checkpoint {step}: {trouble}")

    def _steps(self) -> set[int]:
        names = {path.name for path in self._root.iterdir()}
        if self._mirror is not None:
            names |= self._mirror.names()
        return {int(match[1]) for name in names if (match := _NAME.fullmatch(name))}

    def _examine(self, step: int) -> Manifest | str:
        """The verified manifest of a step's checkpoint, fetched if it has to be; or what is wrong with it."""
        try:
            found = self._verified(step)
        except TornError as torn:
            return str(torn)
        if found.facts.run != self._run:
            return "it belongs to another configuration of this job"
        return found

    def _verified(self, step: int) -> Manifest:
        folder = self.folder(step)
        try:
            return manifest.verify(folder)
        except TornError:
            if self._mirror is None or folder.name not in self._mirror.names():
                raise
        self._notify(f"fetching checkpoint {step}")
        partial = self._root / f".partial-{step}" / folder.name
        with writing("checkpoints", _FIELD):
            shutil.rmtree(partial.parent, ignore_errors=True)
            partial.mkdir(parents=True)
            self._mirror.fetch(folder.name, partial)
            verified = manifest.verify(partial)
            self._put(partial, folder)
        return verified

    def _publish(self, facts: Facts) -> None:
        partial, folder = self._root / f".partial-{facts.step}" / f"checkpoint-{facts.step}", self.folder(facts.step)
        sealed = manifest.seal(partial, facts)
        self._put(partial, folder)
        if self._mirror is not None:
            self._notify(f"copying checkpoint {facts.step}")
            self._mirror.store(folder, folder.name)
        self._refs[facts.step] = self._ref(sealed)
        log.logger().info("checkpoint saved", step=facts.step, bytes=sealed.bytes, uri=self._uri(facts.step))

    def _put(self, partial: Path, folder: Path) -> None:
        """Move a whole checkpoint to its place, which a torn one may hold."""
        if folder.exists():
            folder.rename(partial.parent / "replaced")
        partial.rename(folder)
        sync(self._root)
        shutil.rmtree(partial.parent)

    def _rotate(self) -> None:
        """Let go of all but the newest `keep` of the whole ones, and of what stands before them."""
        kept = sorted((step for step, ref in self._refs.items() if ref.verified), reverse=True)[: self._keep]
        for step in self._steps():
            if step in kept or self._may_still_serve(step, kept):
                continue
            shutil.rmtree(self.folder(step), ignore_errors=True)
            if self._mirror is not None:
                self._mirror.remove(f"checkpoint-{step}")
            self._refs.pop(step, None)

    def _may_still_serve(self, step: int, kept: list[int]) -> bool:
        """Whether fewer than `keep` are there and this one, unread so far, is of this run."""
        if len(kept) >= self._keep or step in self._refs:
            return False
        try:
            return manifest.read(self.folder(step)).facts.run == self._run
        except TornError:
            return False

    def _ref(self, found: Manifest) -> CheckpointRef:
        step, loss = found.facts.step, found.facts.loss
        return CheckpointRef(step=step, uri=self._uri(step), verified=True, bytes=found.bytes, loss=loss)

    def _uri(self, step: int) -> str:
        name = f"checkpoint-{step}"
        return self._mirror.uri_of(name) if self._mirror is not None else (self._root / name).absolute().as_uri()
