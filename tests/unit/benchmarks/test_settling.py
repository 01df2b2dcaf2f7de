"""When the benchmarks take an operator for at rest."""

import json
from pathlib import Path

import pytest
from benchmarks import installed
from benchmarks.control_plane import ControlPlane


async def test_an_operator_is_at_rest_when_it_asks_for_little_whatever_others_ask_for(tmp_path: Path) -> None:
    plane = _Scripted(tmp_path, ("ours", "theirs"), asks=[("ours", 9), ("ours", 5), ("theirs", 50)])
    await installed.settle(plane, "ours")
    assert plane.looked == 3


async def test_an_operator_that_never_rests_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "PATIENCE", 0.0)
    plane = _Scripted(tmp_path, ("ours",), asks=[("ours", 9)] * 2)
    with pytest.raises(TimeoutError, match="ours come to rest"):
        await installed.settle(plane, "ours")


class _Scripted(ControlPlane):
    """Whose audit log grows at each look by so many requests of a user."""

    def __init__(self, folder: Path, users: tuple[str, ...], asks: list[tuple[str, int]]) -> None:
        super().__init__(folder, users)
        self.asks, self.looked = asks, 0
        self._audit.touch()

    def requests_so_far(self) -> int:
        mark = super().requests_so_far()
        user, count = self.asks[self.looked]
        self.looked += 1
        line = {"verb": "get", "user": {"username": user}, "requestURI": "/", "requestReceivedTimestamp": "2026-01-01"}
        with self._audit.open("a") as log:
            log.write((json.dumps(line) + "\n") * count)
        return mark
