from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_trainer.contract import (
    MAX_RESULT_BYTES,
    CheckpointRef,
    ExitCode,
    Progress,
    Published,
    Result,
    Sample,
    Stage,
    TrainedModel,
)
from finetune_trainer.errors import Diverged
from finetune_trainer.pod.result import collect, leave, of_exception, of_silence, termination_message, with_checkpoints


def result(code: ExitCode, message: str = "") -> Result:
    return Result(stage=Stage.TRAIN, exit_code=code, message=message)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Diverged("loss became nan"), ExitCode.DIVERGED),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), ExitCode.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.CANNOT_WRITE),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), ExitCode.CANNOT_WRITE),
        (RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.7]:4242"), ExitCode.PEER_LOST),
        (ConnectionResetError("gone"), ExitCode.PEER_LOST),
        (KeyError("step"), ExitCode.INTERNAL),
    ],
)
def test_an_exception_becomes_the_exit_code_that_fits(error: Exception, code: ExitCode) -> None:
    assert of_exception(Stage.TRAIN, error).exit_code is code


@pytest.mark.parametrize(
    ("status", "tail", "code"),
    [
        (-9, [], ExitCode.KILLED),
        (1, ["  traceback : Signal 9 (SIGKILL) received by PID 7"], ExitCode.KILLED),
        (-6, ["[Rank 1] Watchdog caught collective operation timeout"], ExitCode.PEER_LOST),
        (1, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"], ExitCode.OUT_OF_MEMORY),
        (1, ["ImportError: no module named x"], ExitCode.INTERNAL),
    ],
)
def test_workers_that_left_no_result_are_explained_by_how_they_died(
    status: int, tail: list[str], code: ExitCode
) -> None:
    assert of_silence(Stage.TRAIN, status, tail).exit_code is code


def test_an_unexplained_death_shows_the_last_lines() -> None:
    assert "no module named x" in of_silence(Stage.TRAIN, 1, ["ImportError: no module named x"]).message


@pytest.mark.parametrize(
    ("codes", "blamed"),
    [
        ((ExitCode.PEER_LOST, ExitCode.OUT_OF_MEMORY), ExitCode.OUT_OF_MEMORY),
        ((ExitCode.PEER_LOST, ExitCode.OK), ExitCode.PEER_LOST),
        ((ExitCode.OK, ExitCode.INTERRUPTED), ExitCode.INTERRUPTED),
        ((ExitCode.OK, ExitCode.OK), ExitCode.OK),
    ],
)
def test_the_worker_that_failed_by_itself_explains_the_others(
    tmp_path: Path, codes: tuple[ExitCode, ...], blamed: ExitCode
) -> None:
    for rank, code in enumerate(codes):
        leave(tmp_path, rank, result(code))
    found = collect(tmp_path)
    assert found
    assert found.exit_code is blamed


def test_no_workers_result_is_none(tmp_path: Path) -> None:
    assert collect(tmp_path) is None


@pytest.mark.parametrize("length", [10, 900, 5000])
def test_a_termination_message_is_never_cut_by_kubernetes(length: int) -> None:
    text = "ü" * length
    refs = tuple(
        CheckpointRef(step=step, uri=f"s3://b/{text[:100]}/{step}", verified=True, bytes=1) for step in range(9)
    )
    model = TrainedModel(
        step=9,
        total_steps=9,
        epoch=1.0,
        trainable_parameters=1,
        total_parameters=2,
        checkpoints=refs,
        digest="0" * 64,
    )
    published = Published(artifacts=(), samples=tuple(Sample(prompt=text, before=text, after=text) for _ in range(9)))
    long = result(ExitCode.OK, text).model_copy(update={"trained": model, "published": published, "advice": text})

    message = termination_message(long).encode()

    assert len(message) <= MAX_RESULT_BYTES
    assert Result.model_validate_json(message).exit_code is ExitCode.OK


def test_a_training_that_was_stopped_tells_its_newest_checkpoints() -> None:
    kept = tuple(CheckpointRef(step=step, uri=f"file:///w/{step}", verified=True, bytes=1) for step in (10, 30, 20))
    progress = Progress(stage=Stage.TRAIN, updated_at=datetime.now(UTC), checkpoints=kept)
    stopped = Result(stage=Stage.TRAIN, exit_code=ExitCode.INTERRUPTED, message="asked to stop")
    assert [checkpoint.step for checkpoint in with_checkpoints(stopped, progress).checkpoints] == [20, 30]
    assert with_checkpoints(stopped, None) == stopped


def test_the_newest_checkpoint_survives_when_the_last_word_has_to_be_short() -> None:
    kept = tuple(CheckpointRef(step=step, uri="file:///" + "w" * 1500, verified=True, bytes=1) for step in (10, 20))
    long = Result(stage=Stage.TRAIN, exit_code=ExitCode.INTERNAL, message="x" * 1500, checkpoints=kept)
    told = Result.model_validate_json(termination_message(long))
    assert [checkpoint.step for checkpoint in told.checkpoints] == [20]
