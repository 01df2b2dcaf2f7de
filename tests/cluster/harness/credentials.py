"""The keys of a cluster that lives for minutes: one certificate, one signing key, one token."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from .layout import ADMIN_TOKEN, Instance
from .progress import run

NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class Credentials:
    """Files for the API server and for those who talk to it."""

    certificate: Path
    certificate_key: Path
    service_account_key: Path
    tokens: Path


def credentials(instance: Instance) -> Credentials:
    folder = instance.home / "credentials"
    return Credentials(folder / "api.crt", folder / "api.key", folder / "service-account.key", folder / "tokens.csv")


def write(instance: Instance) -> None:
    """Make the keys, the token file and the admin's kubeconfig."""
    files = credentials(instance)
    files.tokens.parent.mkdir(mode=0o700)
    alternatives = [f"DNS:{name}" for name in NAMES]
    alternatives += [f"IP:{address}" for address in (instance.node_ip, instance.api_service_ip, "127.0.0.1")]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=kubernetes", "-addext", f"subjectAltName={','.join(alternatives)}"]
    outputs: list[str | Path] = ["-keyout", files.certificate_key, "-out", files.certificate]
    run(["openssl", "req", "-x509", *curve, "-days", "30", *names, *outputs])
    run(["openssl", "genrsa", "-out", files.service_account_key, "2048"])
    files.tokens.write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
    instance.kubeconfig.touch(mode=0o600)
    instance.kubeconfig.write_text(json.dumps(_kubeconfig(instance, files.certificate.read_bytes()), indent=2))


def _kubeconfig(instance: Instance, certificate: bytes) -> dict[str, object]:
    authority = base64.b64encode(certificate).decode()
    cluster = {"server": instance.api_server, "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": instance.name, "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": instance.name, "context": {"cluster": instance.name, "user": "admin"}}],
        "current-context": instance.name,
    }
