"""The operator as a process outside the cluster, which a test may kill and start again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.cluster.support.waiting import until

START_SECONDS = 60.0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class OperatorProcess:
    """`finetune-operator` with a kubeconfig. Use it as a context manager; `kill` is SIGKILL."""

    def __init__(self, kubeconfig: Path, log: Path, pod_template: dict[str, Any], **settings: str) -> None:
        self.kubeconfig = kubeconfig
        self.log = log
        self.health, self.metrics = free_port(), free_port()
        self.settings = {
            "PLAN__POD_TEMPLATE": json.dumps(pod_template),
            "PLAN__DEFAULT_WORKSPACE_SIZE": "1Gi",
            "PLAN__TERMINATION_GRACE_SECONDS": "60",
            "HEALTH_PORT": str(self.health),
            "METRICS_PORT": str(self.metrics),
            "LEASE_NAMESPACE": "default",
            "LEASE_DURATION_SECONDS": "6",
            "LEASE_RENEW_SECONDS": "1",
            "SCRAPE_SECONDS": "1",
            "LOG_FORMAT": "json",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it and wait until it leads."""
        environment = dict(os.environ) | {f"FINETUNE_OPERATOR_{name}": value for name, value in self.settings.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetune_operator", "--kubeconfig", str(self.kubeconfig)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._leads, "the operator leads", seconds=START_SECONDS, story=lambda: self.log.read_text()[-4000:])
        return self

    def _leads(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the operator ended:\n{self.log.read_text()[-4000:]}"
        return (
            "leader_election_master_status" in (text := self.scrape())
            and 'master_status{name="' in text
            and any(
                line.startswith("leader_election_master_status") and line.endswith(" 1.0") for line in text.splitlines()
            )
        )

    def scrape(self) -> str:
        """Its Prometheus metrics; empty while it is not up."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""

    def kill(self) -> None:
        """End it as a lost node would: without a word."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as Kubernetes would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)
            self.process = None
