"""A control plane without a node: etcd, kube-apiserver and kube-controller-manager on the loopback of a sandbox.

Each client has a user of its own, so that the audit log tells whose requests there were.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.cluster.harness import build

from benchmarks.processes import cpu_seconds

API = "https://127.0.0.1:6443"
ETCD = "http://127.0.0.1:2379"
BENCHMARK = "benchmark"
CONTROLLERS = "kube-controller-manager"
START_SECONDS = 60.0
# The default, 20 requests a second, would be the Job controller's own limit and thereby the limit of every contender.
CONTROLLER_REQUESTS = "1000"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "None", "users": ["system:apiserver", BENCHMARK]}, {"level": "Metadata"}],
}


class Request(NamedTuple):
    """A kind of request, by whom."""

    user: str
    verb: str
    resource: str
    """With its subresource, or the path of something else."""


@dataclass(frozen=True)
class Audited:
    """A request that was answered."""

    request: Request
    namespace: str
    name: str
    received: float
    """Seconds since the epoch, by the API server's clock, which is this machine's."""


@dataclass
class ControlPlane:
    """The running components; a context manager. `users` may do everything, each with a kubeconfig of its own."""

    folder: Path
    users: tuple[str, ...]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._write_credentials()
        program = str(build.programs().cluster)
        try:
            self._start("etcd", [program, "etcd", *_flags(self._etcd())])
            self._start("kube-apiserver", [program, "kube-apiserver", *_flags(self._api_server())])
            self._wait(["get", "--raw", "/readyz"])
            self._start(CONTROLLERS, [program, CONTROLLERS, *_flags(self._controllers())])
            self._wait(["get", "serviceaccount", "default"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()

    def kubeconfig(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"

    @property
    def certificate(self) -> Path:
        """Of the API server, and of the webhooks that a contender serves; it is its own authority."""
        return self.folder / "tls.crt"

    @property
    def certificate_key(self) -> Path:
        return self.folder / "tls.key"

    def token(self, user: str) -> str:
        return f"token-of-{user}"

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl as the benchmark's user; what it prints."""
        program, kubeconfig = str(build.programs().cluster), str(self.kubeconfig(BENCHMARK))
        command = [program, "kubectl", "--kubeconfig", kubeconfig, *arguments]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, object] | str) -> None:
        """Apply manifests, or YAML text."""
        for manifest in manifests:
            text = manifest if isinstance(manifest, str) else json.dumps(manifest)
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each component has used."""
        return {name: cpu_seconds(process.pid) for name, process in self.processes.items()}

    def requests_so_far(self) -> int:
        """A mark for `requests_since`."""
        return self._audit.stat().st_size

    def audited_since(self, mark: int) -> Iterator[Audited]:
        """Requests that ended since the mark, those of the API server itself and of the benchmark left out."""
        with self._audit.open("rb") as log:
            log.seek(mark)
            for line in log:
                if line.endswith(b"\n"):
                    yield audited(json.loads(line))

    def requests_since(self, mark: int) -> Counter[Request]:
        """How many there were of each kind."""
        return Counter(entry.request for entry in self.audited_since(mark))

    @property
    def _audit(self) -> Path:
        return self.folder / "audit.log"

    def _start(self, name: str, argv: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log, env=dict(os.environ))

    def _wait(self, arguments: list[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.kubectl(*arguments)
            except RuntimeError as error:
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                if ended or time.monotonic() > deadline:
                    logs = "\n".join((self.folder / f"{name}.log").read_text()[-2000:] for name in ended)
                    raise RuntimeError(f"the control plane did not start: {error}\n{logs}") from error
                time.sleep(0.2)
            else:
                return

    def _write_credentials(self) -> None:
        key, certificate = str(self.certificate_key), str(self.certificate)
        names = ",".join(f"DNS:{name}" for name in CERTIFICATE_NAMES) + ",IP:127.0.0.1"
        extensions = [f"subjectAltName={names}", "extendedKeyUsage=serverAuth", "basicConstraints=critical,CA:TRUE"]
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=benchmark",
        ]
        command += [argument for one in extensions for argument in ("-addext", one)]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        # Trainer's and JobSet's rotator reads no newer form of a key than PKCS #1.
        subprocess.run(["openssl", "rsa", "-traditional", "-in", key, "-out", key], check=True, capture_output=True)
        everybody = (BENCHMARK, CONTROLLERS, *self.users)
        rows = (f'{self.token(user)},{user},{user},"system:masters"\n' for user in everybody)
        (self.folder / "tokens.csv").write_text("".join(rows))
        (self.folder / "audit.json").write_text(json.dumps(AUDIT_POLICY))
        for user in everybody:
            self.kubeconfig(user).write_text(json.dumps(self._kubeconfig(user)))

    def _kubeconfig(self, user: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": API, "certificate-authority": str(self.certificate)}}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": user}}],
            "current-context": "it",
        }

    def _etcd(self) -> dict[str, str]:
        return {
            "data-dir": str(self.folder / "etcd"),
            "listen-client-urls": ETCD,
            "advertise-client-urls": ETCD,
            "listen-peer-urls": "http://127.0.0.1:2380",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }

    def _api_server(self) -> dict[str, str]:
        return {
            "advertise-address": "127.0.0.1",
            "bind-address": "127.0.0.1",
            "allow-privileged": "true",
            "authorization-mode": "RBAC",
            "etcd-servers": ETCD,
            "secure-port": "6443",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": str(self.certificate_key),
            "service-account-signing-key-file": str(self.certificate_key),
            "service-cluster-ip-range": "10.96.0.0/16",
            "tls-cert-file": str(self.certificate),
            "tls-private-key-file": str(self.certificate_key),
            "token-auth-file": str(self.folder / "tokens.csv"),
            "audit-policy-file": str(self.folder / "audit.json"),
            "audit-log-path": str(self._audit),
            "audit-log-maxsize": "100000",
        }

    def _controllers(self) -> dict[str, str]:
        return {
            "bind-address": "127.0.0.1",
            "kubeconfig": str(self.kubeconfig(CONTROLLERS)),
            "leader-elect": "false",
            "root-ca-file": str(self.certificate),
            "service-account-private-key-file": str(self.certificate_key),
            "kube-api-qps": CONTROLLER_REQUESTS,
            "kube-api-burst": CONTROLLER_REQUESTS,
            "flex-volume-plugin-dir": str(self.folder / "volume-plugins"),
        }


# The first two are what Trainer and JobSet call the authority that they make when a certificate is not to their taste.
CERTIFICATE_NAMES = (
    "kubeflow-trainer-ca",
    "jobset-ca",
    "kubeflow-trainer-controller-manager.kubeflow-system.svc",
    "jobset-webhook-service.jobset-system.svc",
    "kubernetes.default.svc",
)


def audited(event: Mapping[str, Any]) -> Audited:
    """A line of the audit log."""
    target = event.get("objectRef") or {}
    what = "/".join(filter(None, (target.get("resource", ""), target.get("subresource", ""))))
    received = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    request = Request(event["user"]["username"], event["verb"], what or event["requestURI"].partition("?")[0])
    return Audited(request, target.get("namespace", ""), target.get("name", ""), received)


def _flags(values: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
