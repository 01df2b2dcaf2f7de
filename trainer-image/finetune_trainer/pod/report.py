"""Progress: the file that a stage's worker replaces, and the server that shows it to the operator."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final

from pydantic import ValidationError

from finetune_trainer import log
from finetune_trainer.atomic import replace_file
from finetune_trainer.contract import Progress, Stage

_GAUGES: Final = {
    "step": ("step", "Optimizer steps done."),
    "total_steps": ("total_steps", "Optimizer steps of the whole run."),
    "epoch": ("epoch", "Passes over the training data."),
    "eta_seconds": ("eta_seconds", "Estimated seconds until training ends."),
    "loss": ("loss", "Training loss of the newest logged step."),
    "eval_loss": ("eval_loss", "Newest loss on the held-out rows."),
    "base_eval_loss": ("base_eval_loss", "Loss of the untouched model on the held-out rows."),
    "learning_rate": ("learning_rate", "Learning rate of the newest step."),
    "grad_norm": ("gradient_norm", "Gradient norm of the newest step, before clipping."),
    "tokens_per_second": ("tokens_per_second", "Tokens of all ranks per second, padding not counted."),
    "peak_memory_bytes": ("peak_memory_bytes", "Peak memory of rank 0's device."),
    "trainable_parameters": ("trainable_parameters", "Parameters that training changes."),
    "total_parameters": ("parameters", "Parameters of the model."),
    "world_size": ("world_size", "Ranks that train."),
}


class Reporter:
    """Holds the newest Progress and puts it into the progress file.

    Writing costs a few hundred bytes and a rename, never an fsync: whoever reads it after a crash of the node
    has lost more than this.
    """

    def __init__(self, stage: Stage, file: Path) -> None:
        self._file = file
        self._progress = Progress(stage=stage, updated_at=datetime.now(UTC))

    @property
    def progress(self) -> Progress:
        return self._progress

    def update(self, **known: Any) -> None:
        """Merge fields of Progress and write."""
        self._progress = self._progress.model_copy(update={**known, "updated_at": datetime.now(UTC)})
        replace_file(self._file, self._progress.to_json())

    def notify(self, message: str) -> None:
        """Say what the stage is doing now."""
        log.logger().info(message)
        self.update(message=message)


def metrics_text(progress: Progress) -> str:
    """The Progress in Prometheus' text format."""
    labels = f'{{stage="{progress.stage}"}}'
    lines = []
    for field, (name, help_text) in _GAUGES.items():
        value = getattr(progress, field)
        if value is not None:
            full = f"finetune_trainer_{name}"
            lines += [f"# HELP {full} {help_text}", f"# TYPE {full} gauge", f"{full}{labels} {value}"]
    updated = "finetune_trainer_updated_timestamp_seconds"
    lines += [
        f"# HELP {updated} When the stage last reported, in Unix time.",
        f"# TYPE {updated} gauge",
        f"{updated}{labels} {progress.updated_at.timestamp():.3f}",
    ]
    return "\n".join(lines) + "\n"


def read_progress(file: Path) -> Progress | None:
    """The Progress that a worker left last; None when there is none that can be read."""
    try:
        return Progress.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def serve(progress_file: Path, port: int) -> ThreadingHTTPServer:
    """Serve the progress file on every interface from a background thread; port 0 takes any free one.

    Raises OSError when the port is taken.
    """

    def read() -> bytes:
        return progress_file.read_bytes()

    server = _Server(("", port), _handler(read))
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    """Listens for IPv4 and IPv6, and never asks DNS for its own name."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "progress", self.server_address[1]


def _handler(read: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                content_type, body = self._answer()
            except (FileNotFoundError, ValidationError):
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no progress yet\n")
            else:
                status = HTTPStatus.OK if content_type else HTTPStatus.NOT_FOUND
                self._send(status, content_type or "text/plain", body)

        def _answer(self) -> tuple[str, bytes]:
            match self.path.partition("?")[0]:
                case "/progress":
                    return "application/json", read()
                case "/metrics":
                    text = metrics_text(Progress.model_validate_json(read()))
                    return "text/plain; version=0.0.4; charset=utf-8", text.encode()
                case "/healthz":
                    return "text/plain", b"ok\n"
                case _:
                    return "", b"try /progress, /metrics or /healthz\n"

        def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not worth a line."""

    return Handler
