"""Pods that wait for each other, as processes on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.trainer_runtime.conftest import free_port
from tests.unit.trainer_runtime.test_launch import run_config

from finetune_trainer.contract import Env, ExitCode, Progress, Result, Stage
from finetune_trainer.errors import Internal
from finetune_trainer.pod.rendezvous import Hello, Place, meet
from finetune_trainer.pod.report import Reporter

SECONDS = 30

MEMBER = """
import sys
from pathlib import Path
from finetune_trainer.contract import Stage
from finetune_trainer.pod.rendezvous import Hello, Place, meet
from finetune_trainer.pod.report import Reporter

host, port, uid, attempt, nodes, rank, progress = sys.argv[1:]
hello = Hello(uid=uid, attempt=int(attempt), nodes=int(nodes), rank=int(rank))
meet(Place(host, int(port), hello), Reporter(Stage.TRAIN, Path(progress)))
"""


@dataclass
class Member:
    """A pod that is waiting; it ends well once it has met the others."""

    process: subprocess.Popen[str]
    progress_file: Path

    def message(self) -> str:
        file = self.progress_file
        return Progress.model_validate_json(file.read_bytes()).message if file.exists() else ""

    def says(self, words: str) -> None:
        wait_for(lambda: words in self.message(), lambda: f"{words!r} was not said, but {self.message()!r}")

    def has_met(self) -> bool:
        return self.process.wait(SECONDS) == 0

    def waits(self) -> bool:
        return self.process.poll() is None


@dataclass
class Street:
    """Where the pods of one gang are started."""

    folder: Path
    stack: ExitStack
    port: int
    host: str = "127.0.0.1"
    nodes: int = 2

    def start(self, rank: int, *, attempt: int = 1, uid: str = "u") -> Member:
        progress = self.folder / f"{uid}-{attempt}-{rank}-{time.monotonic_ns()}.json"
        place = [self.host, str(self.port), uid, str(attempt), str(self.nodes), str(rank), str(progress)]
        process = subprocess.Popen([sys.executable, "-c", MEMBER, *place], text=True)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return Member(process, progress)

    def send(self, data: bytes) -> socket.socket:
        """A stranger, who stays on the line."""
        link = self.stack.enter_context(socket.create_connection((self.host, self.port), timeout=SECONDS))
        link.sendall(data)
        return link


def wait_for(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        signal.sigtimedwait({signal.SIGUSR1}, 0.02)  # nobody sends it


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with ExitStack() as stack:
        yield Street(tmp_path, stack, free_port())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_ranks_wait_for_a_rank_0_that_comes_late(street: Street, host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    street.host, street.nodes = host, 3
    others = [street.start(rank) for rank in (1, 2)]
    for other in others:
        other.says("waiting for rank 0")
    assert all(other.waits() for other in others)

    first = street.start(0)

    assert all(member.has_met() for member in (first, *others))


def test_rank_0_waits_for_a_late_rank_and_names_it(street: Street) -> None:
    street.nodes = 3
    first, second = street.start(0), street.start(1)
    first.says("waiting for 1 of 3 pods (rank 2)")
    second.says("rank 0 is there: waiting for the other pods")

    third = street.start(2)

    assert all(member.has_met() for member in (first, second, third))
    assert first.message() == "all pods are there: joining the other ranks"


def test_a_pod_of_an_earlier_attempt_or_another_job_is_no_member(street: Street) -> None:
    first = street.start(0, attempt=2)
    stale, foreign = street.start(1, attempt=1), street.start(1, attempt=2, uid="other")
    stale.says("rank 0 is of attempt 2, this pod is of attempt 1")
    foreign.says("rank 0 is of another job")
    first.says("waiting for 1 of 2 pods (rank 1)")

    member = street.start(1, attempt=2)

    assert first.has_met()
    assert member.has_met()
    assert stale.waits()
    assert foreign.waits()


def test_a_pod_that_is_replaced_while_it_waits_is_taken_in_again(street: Street) -> None:
    street.nodes = 3
    first, lost = street.start(0), street.start(1)
    first.says("waiting for 1 of 3 pods (rank 2)")
    lost.process.kill()
    first.says("waiting for 2 of 3 pods (ranks 1, 2)")

    others = [street.start(1), street.start(2)]

    assert all(member.has_met() for member in (first, *others))


def test_a_rank_0_that_is_replaced_is_found_again(street: Street) -> None:
    street.nodes = 3
    lost, second = street.start(0), street.start(1)
    second.says("rank 0 is there")
    lost.process.kill()
    second.says("waiting for rank 0")

    others = [street.start(0), street.start(2)]

    assert all(member.has_met() for member in (second, *others))


def test_a_pod_that_is_there_but_answers_nothing_does_not_count(street: Street) -> None:
    street.nodes = 3
    first, frozen = street.start(0), street.start(1)
    frozen.says("rank 0 is there")
    frozen.process.send_signal(signal.SIGSTOP)
    third = street.start(2)
    first.says("waiting for 1 of 3 pods (rank 1)")

    second = street.start(1)

    assert all(member.has_met() for member in (first, second, third))


def test_strangers_are_ignored(street: Street) -> None:
    first = street.start(0)
    first.says("waiting for")
    street.send(b"GET / HTTP/1.1\r\n\r\n")
    street.send(b"")
    street.send(b'{"uid": "u", "attempt": 1, "nodes": 2, "rank": -1}\n')
    street.send(b'{"uid": "u", "attempt": 1, "nodes": 2, "rank": 0}\n')
    endless = street.send(b"x" * 4096)
    assert endless.recv(1) == b""

    assert first.waits()
    assert street.start(1).has_met()
    assert first.has_met()


def test_one_pod_waits_for_nobody(tmp_path: Path) -> None:
    alone = Place("nobody.invalid", 1, Hello(uid="u", attempt=1, nodes=1, rank=0))
    meet(alone, Reporter(Stage.TRAIN, tmp_path / "progress.json"))


def test_a_port_that_another_process_holds_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = Place("127.0.0.1", other.getsockname()[1], Hello(uid="u", attempt=1, nodes=2, rank=0))
        with pytest.raises(Internal, match=f"127.0.0.1:{place.port}: Address already in use"):
            meet(place, Reporter(Stage.TRAIN, tmp_path / "progress.json"))


def test_a_name_that_leads_to_another_pod_is_waited_for(street: Street) -> None:
    street.host = "192.0.2.1"  # no address of any machine
    first = street.start(0)
    first.says("its name still leads to another pod")
    assert first.waits()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_pod_that_is_told_to_stop_while_it_waits_ends_as_interrupted(tmp_path: Path, rank: int) -> None:
    prepared = {"format": "text", "rows": 1, "trainRows": 1, "evalRows": 0, "digest": "0"}
    config = run_config(stage="train", topology={"nodes": 2}, prepared=prepared)
    (tmp_path / "run.json").write_text(config.to_json())
    folders = (Env.WORKSPACE, Env.SCRATCH, Env.SECRETS, Env.VOLUMES)
    environ = {
        **{str(name): str(tmp_path / name) for name in folders},
        str(Env.RUN_CONFIG): str(tmp_path / "run.json"),
        str(Env.TERMINATION_LOG): str(tmp_path / "termination"),
        str(Env.PROGRESS_PORT): "0",
        str(Env.NODE_RANK): str(rank),
        str(Env.MASTER_ADDR): "127.0.0.1",
        str(Env.MASTER_PORT): str(free_port()),
    }
    with ExitStack() as stack:
        command = [sys.executable, "-m", "finetune_trainer", "train"]
        process = subprocess.Popen(command, env={**os.environ, **environ}, text=True)
        stack.callback(process.kill)
        Member(process, tmp_path / Env.SCRATCH / "progress.json").says("waiting for")
        process.terminate()
        told = time.monotonic()
        code = process.wait(SECONDS)
    result = Result.model_validate_json((tmp_path / "termination").read_bytes())
    assert time.monotonic() - told < 5
    assert (code, result.exit_code) == (ExitCode.INTERRUPTED, ExitCode.INTERRUPTED)
    assert "waiting for the other pods" in result.message
