"""A trainer that computes nothing: its stages speak the contract and are over in seconds.

Runs in a pod as its first process. It takes ten steps a second, keeps a checkpoint of every tenth one in the workspace
and resumes from it; SIGTERM checkpoints and ends it as interrupted, SIGUSR1 makes it crash.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from finetune_trainer.contract import (
    Artifact,
    CheckpointRef,
    DataFormat,
    Env,
    ExitCode,
    PreparedData,
    Progress,
    Published,
    Result,
    RunConfig,
    Stage,
    TrainedModel,
)

DIGEST = "0" * 64
STEP_SECONDS = 0.1
CHECKPOINT_STEPS = 10
STEPS = "PRETEND_STEPS"


def pod_template(repository: Path, steps: int = 50) -> dict[str, Any]:
    """A podTemplate of a job: this program in place of the trainer; -P, as this folder has an operator.py."""
    program = ["python", "-P", f"{repository.absolute()}/tests/cluster/support/pretend_trainer.py"]
    container = {"name": "trainer", "command": program, "env": [{"name": STEPS, "value": str(steps)}]}
    return {"spec": {"containers": [container]}}


class Training:
    """The steps of one attempt; what rank 0 has saved is what all of them resume from."""

    def __init__(self) -> None:
        self.total = int(os.environ[STEPS])
        self.is_first = os.environ.get(Env.NODE_RANK, "0") == "0"
        self.file = Path(os.environ[Env.WORKSPACE], "checkpoint")
        self.begun = self.step = self.saved = int(self.file.read_text()) if self.file.exists() else 0
        self.stop = threading.Event()

    def run(self) -> ExitCode:
        while self.step < self.total and not self.stop.wait(STEP_SECONDS):
            self.step += 1
            if self.step % CHECKPOINT_STEPS == 0:
                self.save()
        if self.step < self.total:
            self.save()
            return ExitCode.INTERRUPTED
        return ExitCode.OK

    def save(self) -> None:
        if self.is_first:
            fresh = self.file.with_suffix(".new")
            fresh.write_text(str(self.step))
            fresh.replace(self.file)
        self.saved = self.step

    @property
    def checkpoints(self) -> tuple[CheckpointRef, ...]:
        uri = f"{self.file.as_uri()}-{self.saved}"
        return (CheckpointRef(step=self.saved, uri=uri, verified=True, bytes=1),) if self.saved else ()

    def progress(self) -> Progress:
        return Progress(
            stage=Stage.TRAIN,
            updated_at=datetime.now(UTC),
            step=self.step,
            total_steps=self.total,
            resumed_from_step=self.begun or None,
            checkpoints=self.checkpoints,
        )

    def result(self, code: ExitCode) -> Result:
        trained = TrainedModel(
            step=self.step,
            total_steps=self.total,
            epoch=1.0,
            trainable_parameters=1,
            total_parameters=1,
            resumed_from_step=self.begun or None,
            checkpoints=self.checkpoints,
            digest=DIGEST,
        )
        return Result(
            stage=Stage.TRAIN,
            exit_code=code,
            message="pretended to train",
            step=self.step,
            resumed_from_step=self.begun or None,
            trained=trained if code is ExitCode.OK else None,
        )


def serve(training: Training) -> None:
    """Answer every GET with the progress."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = training.progress().to_json().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("", int(os.environ[Env.PROGRESS_PORT])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def train() -> Result:
    training = Training()
    signal.signal(signal.SIGTERM, lambda *_: training.stop.set())
    if training.is_first:
        serve(training)
    return training.result(training.run())


def prepared() -> Result:
    data = PreparedData(format=DataFormat.TEXT, rows=2, train_rows=2, eval_rows=0, digest=DIGEST)
    return Result(stage=Stage.PREPARE, exit_code=ExitCode.OK, message="pretended to prepare", prepared=data)


def published(uri: str) -> Result:
    artifacts = (Artifact(kind="adapter", uri=uri, sha256=DIGEST, bytes=1),)
    message = "pretended to publish"
    return Result(stage=Stage.PUBLISH, exit_code=ExitCode.OK, message=message, published=Published(artifacts=artifacts))


def main() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(ExitCode.INTERNAL))
    config = RunConfig.model_validate_json(Path(os.environ[Env.RUN_CONFIG]).read_bytes())
    match config.stage:
        case Stage.PREPARE:
            result = prepared()
        case Stage.TRAIN:
            result = train()
        case Stage.PUBLISH:
            result = published(config.output.uri)
    Path(os.environ[Env.TERMINATION_LOG]).write_text(result.to_json())
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
