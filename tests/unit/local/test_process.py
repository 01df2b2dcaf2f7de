"""Nothing that a pod started outlives the pod or the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from finetune_operator.local.podspec import Launch
from finetune_operator.local.process import PodProcess

PATIENCE = 15.0
FAMILY = """
import os, subprocess, sys, time
child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child, "child"])
subprocess.Popen([sys.executable, "-c", child, "stranger"], start_new_session=True)
open("parent", "w").write(str(os.getpid()))
"""


def launch(folder: Path, script: str) -> Launch:
    return Launch((sys.executable, "-c", script), dict(os.environ), folder, folder / "log", folder)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not what():
        assert monotonic() < deadline, "it took too long"
        sleep(0.02)


def pids(folder: Path) -> list[int]:
    names = [folder / name for name in ("parent", "child", "stranger")]
    wait_for(lambda: all(name.exists() and name.read_text() for name in names))
    return [int(name.read_text()) for name in names]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def end_of(process: PodProcess) -> int:
    wait_for(lambda: process.poll() is not None)
    code = process.poll()
    assert code is not None
    return code


@pytest.mark.parametrize(
    ("script", "code"), [("raise SystemExit(65)", 65), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_is_the_commands_own(tmp_path: Path, script: str, code: int) -> None:
    assert end_of(PodProcess(launch(tmp_path, script), tmp_path / "out")) == code


def test_a_command_that_does_not_exist_says_so_in_the_log(tmp_path: Path) -> None:
    process = PodProcess(
        Launch(("no-such-command",), dict(os.environ), tmp_path, tmp_path / "l", tmp_path), tmp_path / "o"
    )
    assert end_of(process) == 127
    assert "cannot start no-such-command" in process.last_words()


def test_what_a_pod_leaves_running_ends_with_it_whatever_session_it_is_in(tmp_path: Path) -> None:
    process = PodProcess(
        launch(tmp_path, FAMILY + "import time\nwhile not os.path.exists('go'): time.sleep(.01)"), tmp_path / "out"
    )
    family = pids(tmp_path)
    (tmp_path / "go").touch()
    assert end_of(process) == 0
    assert not any(alive(pid) for pid in family)


def test_killing_a_pod_leaves_none_of_its_processes(tmp_path: Path) -> None:
    process = PodProcess(launch(tmp_path, FAMILY + "time.sleep(60)"), tmp_path / "out")
    family = pids(tmp_path)
    process.kill()
    assert process.poll() == 137
    assert not any(alive(pid) for pid in family)


def test_a_runner_that_is_killed_takes_its_pods_with_it(tmp_path: Path) -> None:
    runner = f"""
import os, sys, time
from pathlib import Path
from finetune_operator.local.podspec import Launch
from finetune_operator.local.process import PodProcess
folder = Path({str(tmp_path)!r})
command = (sys.executable, "-c", {FAMILY + "time.sleep(60)"!r})
pod = PodProcess(Launch(command, dict(os.environ), folder, folder / "log", folder), folder / "out")
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", runner])
    family = pids(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in family))
