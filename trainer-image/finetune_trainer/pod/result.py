"""The stage's last word: what each worker leaves, what the supervisor makes of it, what the operator reads."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from finetune_trainer.atomic import replace_file
from finetune_trainer.contract import MAX_RESULT_BYTES, ExitCode, Progress, Result, Stage
from finetune_trainer.errors import CannotWrite, Internal, OutOfMemory, PeerLost, StageError

_PEER_LOST: Final = re.compile(
    r"Connection (closed|reset) by (remote )?peer|DistNetworkError|DistStoreError|DistBackendError|Broken pipe"
    r"|RendezvousTimeout|RendezvousConnectionError|ncclRemoteError|ncclSystemError|NCCL.*(timeout|aborted)"
    r"|Watchdog caught collective|client socket has timed out|Timed out waiting \d+ms for"
    r"|Application timeout caused pair closure|Read error \[|Gloo connectFullMesh failed",
    re.IGNORECASE,
)
_OUT_OF_MEMORY: Final = re.compile(
    r"CUDA out of memory|OutOfMemoryError|DefaultCPUAllocator: can't allocate memory|std::bad_alloc|MemoryError"
)
_NO_SPACE: Final = re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed")
_KILLED_BY: Final = re.compile(r"Signal (\d+) \(SIG\w+\) received by PID|exitcode\s*:\s*-(\d+)")
_CANNOT_WRITE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_LAST_LINES: Final = 8
_NEWEST: Final = 2
_SIGKILL: Final = 9


def leave(folder: Path, local_rank: int, result: Result) -> None:
    """Put a worker's Result where its supervisor looks for it."""
    replace_file(folder / f"{local_rank}.json", result.to_json())


def collect(folder: Path) -> Result | None:
    """The one of the local workers' Results that explains the others, or None when there is none.

    A rank that failed by itself explains why its peers lost it.
    """
    found = [_read(path) for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem))]
    results = [result for result in found if result is not None]
    return min(results, key=_blame, default=None)


def _read(path: Path) -> Result | None:
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def _blame(result: Result) -> int:
    order = {ExitCode.OK: 3, ExitCode.PEER_LOST: 2, ExitCode.INTERRUPTED: 1}
    return order.get(result.exit_code, 0)


def of_exception(stage: Stage, error: BaseException) -> Result:
    """The Result of a stage that ended with an exception of any kind."""
    return stage_error(error).result(stage)


def stage_error(error: BaseException) -> StageError:
    """The exception as one of ours: by its type where it has one, else by what it says."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, StageError):
        return error
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(text, advice=_MORE_MEMORY)
    if (isinstance(error, OSError) and error.errno in _CANNOT_WRITE) or _NO_SPACE.search(text):
        return CannotWrite(text, advice="enlarge the workspace, or make it writable for the pod's user (fsGroup)")
    if isinstance(error, ConnectionError) or _PEER_LOST.search(text):
        return PeerLost(f"lost contact with another rank ({_first_sentence(text)})", advice=_LOOK_AT_PEERS)
    return Internal(text)


def _first_sentence(text: str) -> str:
    """Without the advice that gloo and NCCL add for developers."""
    return text.partition(". This is typically")[0].partition("\n")[0][:300]


_LOOK_AT_PEERS: Final = "look at the other pods of the job: one of them ended first, and says why"
_MORE_MEMORY: Final = (
    "halve per_device_train_batch_size and double gradient_accumulation_steps, turn on gradient_checkpointing, "
    "or lower maxSequenceLength"
)


def of_silence(stage: Stage, status: int, tail: Sequence[str]) -> Result:
    """The Result of workers that left none: from the exit status (negative: a signal) and the last lines they wrote."""
    text = "\n".join(tail)
    killed = [int(one or other) for one, other in _KILLED_BY.findall(text)]
    if status == -_SIGKILL or _SIGKILL in killed:
        return Result(
            stage=stage,
            exit_code=ExitCode.KILLED,
            message="a worker was killed (SIGKILL): out of host memory, or somebody killed it",
            advice="raise the pod's memory limit if the container status says OOMKilled",
        )
    for pattern, kind, message in (
        (_OUT_OF_MEMORY, OutOfMemory, "a worker ran out of memory"),
        (_NO_SPACE, CannotWrite, "a worker could not write"),
        (_PEER_LOST, PeerLost, "lost contact with another rank"),
    ):
        if pattern.search(text):
            line = next(line for line in tail if pattern.search(line))
            return kind(f"{message}: {_first_sentence(line.strip())}").result(stage)
    died = f"signal {-status}" if status < 0 else f"exit status {status}"
    last = "\n".join(line for line in tail if line.strip()).splitlines()[-_LAST_LINES:]
    return Internal("\n".join([f"the workers died with {died} and left no result", *last])).result(stage)


def with_checkpoints(result: Result, progress: Progress | None) -> Result:
    """The Result of a training that did not reach its end, with the newest checkpoints that rank 0 reported."""
    if result.stage is not Stage.TRAIN or result.trained is not None or progress is None:
        return result
    newest = sorted(progress.checkpoints, key=lambda checkpoint: checkpoint.step)[-_NEWEST:]
    return result.model_copy(update={"checkpoints": tuple(newest)})


def termination_message(result: Result) -> str:
    """The Result as JSON that Kubernetes does not cut: the least important parts go first."""
    for shorter in (result, _without_lists(result), _with_short_texts(result, 800), _with_short_texts(result, 200)):
        text = shorter.to_json()
        if len(text.encode()) <= MAX_RESULT_BYTES:
            return text
    bare = Result(stage=result.stage, exit_code=result.exit_code, message=result.message[:200], step=result.step)
    return bare.to_json()


def _without_lists(result: Result) -> Result:
    prepared, trained = result.prepared, result.trained
    return result.model_copy(
        update={
            "checkpoints": result.checkpoints[-1:],
            "prepared": prepared and prepared.model_copy(update={"invalid_reasons": prepared.invalid_reasons[:3]}),
            "trained": trained and trained.model_copy(update={"checkpoints": trained.checkpoints[-2:]}),
        }
    )


def _with_short_texts(result: Result, limit: int) -> Result:
    short = _without_lists(result)
    published = short.published
    if published is not None:
        cut = tuple(
            sample.model_copy(update={key: getattr(sample, key)[: limit // 4] for key in ("prompt", "before", "after")})
            for sample in published.samples[:4]
        )
        published = published.model_copy(update={"samples": cut})
    return short.model_copy(
        update={
            "message": short.message[:limit],
            "advice": short.advice and short.advice[:limit],
            "published": published,
        }
    )
