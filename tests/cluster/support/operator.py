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
        self.environment: dict[str, str] = {}
        """Variables that are not settings of the operator."""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it and wait until it leads."""
        self.launch()
        until(self._leads, "the operator leads", seconds=START_SECONDS, story=lambda: self.log.read_text()[-4000:])
        return self

    def launch(self) -> None:
        """Start it, without waiting."""
        settings = {f"FINETUNE_OPERATOR_{name}": value for name, value in self.settings.items()}
        environment = {**os.environ, **settings, **self.environment}
        command = [sys.executable, "-m", "finetune_operator", "--kubeconfig", str(self.kubeconfig)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def _leads(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the operator ended:\n{self.log.read_text()[-4000:]}"
        return self.leads()

    def leads(self) -> bool:
        """Whether it holds the Lease."""
        return self.total("leader_election_master_status") == 1

    def reconciles(self) -> float:
        """Reconciles done since it started."""
        return self.total("controller_runtime_reconcile_total")

    def total(self, metric: str, *labels: str) -> float:
        """Sum of a metric over the series that carry these labels (`kind="pods"`); 0 while it is not up."""
        lines = [line for line in self.scrape().splitlines() if line.startswith(f"{metric}{{")]
        return sum(float(line.split()[-1]) for line in lines if all(label in line for label in labels))

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
