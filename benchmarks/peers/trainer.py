"""Kubeflow Trainer and JobSet as processes outside the cluster, with their webhooks, as their manifests set them up.

The webhooks are called by address, since nothing here routes a Service; certificates are given, valid in the eyes of
the rotator that both have built in, which injects them as it would its own.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.control_plane import ControlPlane
from benchmarks.load import Body
from benchmarks.peers.build import Module, Peers

TRAINER, JOBSET = "trainer", "jobset"
RUNTIME = "benchmark"
CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")  # noqa: S108 - both insist on it; the sandbox's own
START_SECONDS = 60.0
PORTS = {TRAINER: (9443, 8181, 8281), JOBSET: (9444, 8182, 8282)}
"""Of webhooks, health and metrics."""
_RECONCILES = re.compile(r'^controller_runtime_reconcile_total\{controller="trainjob\w*",.*\} (\S+)$', re.MULTILINE)


class TrainerAndJobSet:
    """Both processes; `program` is one of the builds of Trainer."""

    users = (TRAINER, JOBSET)

    def __init__(self, plane: ControlPlane, peers: Peers, program: Path, name: str) -> None:
        self.name = name
        self._plane, self._peers, self._program = plane, peers, program
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not all(self._is_ready(name) for name in self._running):
            for name, process in self._running.items():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start:\n{self._log(name).read_text()[-3000:]}")
            time.sleep(0.2)

    def launch(self) -> None:
        CERTIFICATES.mkdir(parents=True, exist_ok=True)
        for name in ("tls.crt", "tls.key"):
            (CERTIFICATES / name).write_bytes((self._plane.folder / name).read_bytes())
        self._run(JOBSET, self._peers.jobset, f"--config={self._jobset_configuration()}")
        webhooks, health, metrics = PORTS[TRAINER]
        self._run(
            TRAINER,
            self._program,
            f"--webhook-server-port={webhooks}",
            f"--health-probe-bind-address=127.0.0.1:{health}",
            f"--metrics-bind-address=127.0.0.1:{metrics}",
            "--metrics-secure=false",
        )

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(timeout=60)
        self._running.clear()

    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values()]

    def reconciles(self) -> float:
        text = _get(f"http://127.0.0.1:{PORTS[TRAINER][2]}/metrics")
        return sum(float(match[1]) for match in _RECONCILES.finditer(text))

    def path(self, namespace: str) -> str:
        return f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"

    def manifest(self, name: str, pods: int) -> Body:
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": name},
            "spec": {"runtimeRef": {"name": RUNTIME}, "trainer": {"numNodes": pods, "numProcPerNode": 1}},
        }

    def _is_ready(self, name: str) -> bool:
        return _get(f"http://127.0.0.1:{PORTS[name][1]}/readyz") == "ok"

    def _run(self, name: str, program: Path, *flags: str) -> None:
        argv = [str(program), f"--kubeconfig={self._plane.kubeconfig(name)}", *flags]
        with self._log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(argv, stdout=log, stderr=log)

    def _log(self, name: str) -> Path:
        return self._plane.folder / f"{name}.log"

    def _jobset_configuration(self) -> Path:
        webhooks, health, metrics = PORTS[JOBSET]
        file = self._plane.folder / "jobset.json"
        configuration = {
            "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "webhook": {"port": webhooks, "host": "127.0.0.1"},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
            "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
            "leaderElection": {"leaderElect": False},
        }
        file.write_text(json.dumps(configuration))
        return file


def install(plane: ControlPlane, peers: Peers) -> None:
    """CRDs, webhooks, their certificates and a runtime, from the modules' own manifests where there are such."""
    plane.kubectl("create", "namespace", "kubeflow-system")
    plane.kubectl("create", "namespace", "jobset-system")
    plane.apply(_secret(plane, "kubeflow-system", "kubeflow-trainer-webhook-cert"))
    plane.apply(_secret(plane, "jobset-system", "jobset-webhook-server-cert"))
    for file in (
        *sorted((peers.trainer_module.folder / "manifests/base/crds").glob("trainer.*.yaml")),
        *sorted((peers.jobset_module.folder / "config/components/crd/bases").glob("*.yaml")),
    ):
        plane.apply(file.read_text())
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    plane.apply(_webhooks(peers.trainer_module, "manifests/base/webhook", "validator.trainer.kubeflow.org", TRAINER))
    plane.apply(_webhooks(peers.jobset_module, "config/components/webhook", "jobset-", JOBSET))


def install_runtime(plane: ControlPlane) -> None:
    """What a TrainJob refers to; its webhook must answer.

    Trainer's own `torch-distributed`, with an image that nobody pulls, and with what restarts a gang: a pod that fails
    fails its Job, and that restarts the JobSet.
    """
    container = {"name": "node", "image": "localhost/trainer:test"}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"backoffLimit": 0, "template": pod},
    }
    jobset = {"failurePolicy": {"maxRestarts": 10}, "replicatedJobs": [{"name": "node", "template": job}]}
    policy = {"numNodes": 1, "torch": {"numProcPerNode": "auto"}}
    plane.apply(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "ClusterTrainingRuntime",
            "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
            "spec": {"mlPolicy": policy, "template": {"spec": jobset}},
        }
    )


def _secret(plane: ControlPlane, namespace: str, name: str) -> Body:
    certificate, key = plane.certificate.read_bytes(), plane.certificate_key.read_bytes()
    files = {"ca.crt": certificate, "ca.key": key, "tls.crt": certificate, "tls.key": key}
    data = {file: base64.b64encode(content).decode() for file, content in files.items()}
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def _webhooks(module: Module, folder: str, name: str, process: str) -> str:
    """The webhook configurations of a module's manifests, called by address instead of by Service."""
    found = yaml.safe_load_all((module.folder / folder / "manifests.yaml").read_text())
    return yaml.safe_dump_all(list(_by_address(found, name, PORTS[process][0])))


def _by_address(configurations: Iterator[Any], name: str, port: int) -> Iterator[Body]:
    for configuration in configurations:
        own_name = configuration["metadata"]["name"]
        configuration["metadata"]["name"] = name + own_name if name.endswith("-") else name
        for webhook in configuration["webhooks"]:
            path = webhook["clientConfig"].pop("service")["path"]
            webhook["clientConfig"]["url"] = f"https://127.0.0.1:{port}{path}"
            if webhook["name"].endswith("pod.kb.io"):  # as the patches beside it have it
                is_theirs = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
                webhook["objectSelector"] = {"matchExpressions": [is_theirs]}
        yield configuration


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5, context=ssl.create_default_context()) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
