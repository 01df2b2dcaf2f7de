"""A large dataset is streamed: memory stays what it is, several processes give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.trainer.conftest import WORDS, pairs

from finetune_trainer import prepare
from finetune_trainer.contract import PreparedData, RunConfig
from finetune_trainer.data.parallel import batches, cores, in_processes
from finetune_trainer.data.rows import RawRow
from finetune_trainer.errors import Internal, InvalidData
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]


def many(count: int) -> list[dict[str, Any]]:
    return [*pairs(count - 1), {"prompt": "a", "completion": ""}]


def prepared(config: RunConfig, paths: Paths) -> PreparedData:
    found = prepare.run(config, paths, lambda _: None).prepared
    assert found is not None
    return found


def test_several_processes_give_the_rows_of_one(job: Job, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.data.parallel._ROWS", 50)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = prepared(job(many(2000)), paths)
    (paths.dataset_dir / "prepared.json").unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert prepared(job(many(2000)), paths) == alone
    assert (alone.rows, alone.invalid_reasons) == (1999, ("line 2000: `completion` is empty",))


def test_a_file_that_breaks_midway_ends_the_other_processes_too(tmp_path: Path) -> None:
    def rows() -> Iterator[RawRow]:
        yield from (RawRow(f"line {number}", {"text": "x"}) for number in range(20_000))
        raise InvalidData("cannot be read beyond line 20,000")

    with pytest.raises(InvalidData, match="beyond line"):
        list(in_processes(len, rows(), 2))


def test_a_process_that_is_killed_is_told_with_what_to_do() -> None:
    def die(batch: list[RawRow]) -> int:
        if os.getpid() != mine:
            os._exit(9)
        return len(batch)

    mine = os.getpid()
    rows = (RawRow(f"line {number}", {"text": "x"}) for number in range(20_000))
    with pytest.raises(Internal, match="a process that tokenises was killed") as error:
        list(in_processes(die, rows, 2))
    assert "memory" in str(error.value.advice)


def test_no_more_is_read_than_the_processes_have_to_do() -> None:
    read = 0

    def rows() -> Iterator[RawRow]:
        nonlocal read
        for read in range(1, 100_001):
            yield RawRow(f"line {read}", {"text": "x"})

    done = 0
    for count in in_processes(len, rows(), 2):
        done += count
        assert read - done <= 6_000
    assert done == 100_000


def test_long_rows_make_small_batches() -> None:
    rows = [RawRow("", {"messages": [{"content": "x" * 900_000}]})] * 7
    assert [len(batch) for batch in batches(iter(rows))] == [3, 3, 1]


def test_as_many_processes_tokenise_as_the_pod_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cores(training_processes=8) == 32
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cores(training_processes=8) == len(os.sched_getaffinity(0))


MEASURE = """
import json, resource, sys
from pathlib import Path
from finetune_trainer.contract import RunConfig
from finetune_trainer.data import prepare_dataset
from finetune_trainer.workspace import Paths

def peak():
    status = Path("/proc/self/status").read_text().splitlines()  # getrusage counts what the parent had before exec
    mine = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return mine / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024

peaks = []
for plain in json.loads(sys.argv[1]):
    folder = Path(sys.argv[2])
    paths = Paths(folder / "workspace", folder / "scratch", folder / "secrets", folder / "volumes")
    prepare_dataset(RunConfig.model_validate(plain), paths, lambda _: None)
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])
def test_ten_times_as_many_rows_need_no_more_memory(job: Job, paths: Paths, tmp_path: Path, processes: int) -> None:
    text = " ".join(WORDS) * 4
    jobs = []
    for count in (4_000, 40_000):
        file = tmp_path / f"{count}.jsonl"
        with file.open("w") as rows:
            rows.writelines(json.dumps({"text": f"{number} {text}"}) + "\n" for number in range(count))
        training = {"maxSequenceLength": 256, "peftConfig": {"r": 2}, "objective": "self-supervised"}
        jobs.append(job(datasets=[{"uri": f"file://{file}"}], training=training).model_dump(by_alias=True, mode="json"))
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(jobs), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": str(processes), "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    small, large = json.loads(measured.stdout.splitlines()[-1])
    size = (tmp_path / "40000.jsonl").stat().st_size / 2**20
    assert size > 10
    assert large[0] - small[0] < 10
    assert max(large) < 1024, (small, large)
