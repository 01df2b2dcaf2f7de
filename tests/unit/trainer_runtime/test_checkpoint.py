"""Checkpoints as folders: no training, one or two imagined ranks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract import CheckpointPolicy
from finetune_trainer.training import manifest
from finetune_trainer.training.checkpoint import CheckpointStore
from finetune_trainer.training.checkpoint_mirror import CheckpointMirror
from finetune_trainer.training.manifest import Facts, TornError
from finetune_trainer.workspace import Paths


class Alone:
    is_main_process = is_local_main_process = True

    def gather(self, mine: Any) -> list[Any]:
        return [mine]


class WithPeer(Alone):
    """A rank whose peer on another pod has the given steps only, and finds every one whole."""

    def __init__(self, steps: set[int]) -> None:
        self._steps = steps

    def gather(self, mine: Any) -> list[Any]:
        return [mine, self._steps if isinstance(mine, set) else mine]


def facts(step: int, run: str = "run") -> Facts:
    return Facts(step=step, world_size=1, global_batch=4, run=run, rng=("rng_state.pth",), loss=1.5)


def make(root: Path, *, keep: int = 2, peers: Any = None, run: str = "run", mirror: Any = None) -> CheckpointStore:
    return CheckpointStore(root, peers or Alone(), run=run, keep=keep, mirror=mirror, notify=lambda _: None)


def save(store: CheckpointStore, step: int) -> None:
    folder = store.partial(step)
    (folder / "weights").write_bytes(b"w" * step)
    (folder / "optimizer.pt").write_bytes(b"o" * step)
    store.seal(facts(step))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    store = make(tmp_path)
    for step in (1, 2, 3):
        save(store, step)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    assert [(ref.step, ref.verified, ref.bytes, ref.loss) for ref in store.refs] == [
        (2, True, 4, 1.5),
        (3, True, 6, 1.5),
    ]


def test_a_checkpoint_that_was_never_sealed_is_not_there(tmp_path: Path) -> None:
    store = make(tmp_path)
    (store.partial(5) / "weights").write_bytes(b"half")
    assert make(tmp_path).newest() is None
    store.abandon(5)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"o"), "has 1 of 9 bytes"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"x" * 9), "is not what was written"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_an_older_whole_one(tmp_path: Path, damage: Any, reason: str) -> None:
    store = make(tmp_path)
    save(store, 4)
    save(store, 9)
    damage(tmp_path / "checkpoint-9")

    with pytest.raises(TornError, match=reason):
        manifest.verify(tmp_path / "checkpoint-9")
    again = make(tmp_path)
    found = again.newest()

    assert found
    assert found[1].step == 4
    assert [(ref.step, ref.verified) for ref in again.refs] == [(4, True), (9, False)]


def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    save(make(tmp_path), 4)
    assert make(tmp_path, run="other").newest() is None


def test_ranks_resume_from_what_all_of_them_have(tmp_path: Path) -> None:
    store = make(tmp_path)
    save(store, 4)
    save(store, 9)
    found = make(tmp_path, peers=WithPeer({4, 2})).newest()
    assert found
    assert found[1].step == 4


def test_a_step_that_is_done_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    store = make(tmp_path)
    save(store, 4)
    (tmp_path / "checkpoint-4" / "weights").write_bytes(b"torn")
    save(store, 4)
    assert manifest.verify(tmp_path / "checkpoint-4").facts.step == 4
    assert names(tmp_path) == ["checkpoint-4"]


def test_older_ones_found_at_the_start_count_towards_those_kept(tmp_path: Path) -> None:
    for step in (1, 2):
        save(make(tmp_path), step)
    again = make(tmp_path)
    again.newest()
    save(again, 3)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]


def test_a_mirror_provides_what_the_workspace_lost(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "w", tmp_path / "s", tmp_path / "secrets", tmp_path / "volumes")
    mirror = CheckpointMirror.of(CheckpointPolicy(uri=f"file://{tmp_path}/mirror"), paths)
    store = make(tmp_path / "here", mirror=mirror)
    for step in (1, 2, 3):
        save(store, step)
    assert names(tmp_path / "mirror") == ["checkpoint-2", "checkpoint-3"]
    shutil.rmtree(tmp_path / "here")

    again = make(tmp_path / "here", mirror=mirror)
    found = again.newest()

    assert found == (tmp_path / "here" / "checkpoint-3", facts(3))
    assert (found[0] / "weights").read_bytes() == b"www"
    assert again.refs[0].uri == f"file://{tmp_path}/mirror/checkpoint-3"


def test_a_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    for folder, name, content in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    digests = [manifest.digest_of(tmp_path / folder) for folder in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
