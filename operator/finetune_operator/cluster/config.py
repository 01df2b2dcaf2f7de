"""How to reach the API server: in a pod by its service account, elsewhere by a kubeconfig."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoClusterError(Exception):
    """There is neither a service account nor a usable kubeconfig."""


@dataclass(frozen=True)
class Credentials:
    """What a second client (Kopf's) needs to reach the same API server."""

    server: str
    ca_path: str | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    username: str | None
    password: str | None
    scheme: str | None
    token: str | None


async def load(kubeconfig: Path | None, context: str | None) -> Any:
    """The client's configuration; a kubeconfig that is named comes before the pod's service account."""
    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and SERVICE_ACCOUNT.joinpath("token").is_file():
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(
                config_file=str(kubeconfig) if kubeconfig else None,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, OSError) as error:
        where = kubeconfig or "the default kubeconfig"
        raise NoClusterError(
            f"cannot reach a cluster by {where}: {error}; name a kubeconfig in KUBECONFIG, "
            "or run in a pod with a service account"
        ) from error
    # Reading proxy settings and .netrc costs as much as the request itself.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.retries = None
    return configuration


async def credentials(configuration: Any) -> Credentials:
    """The credentials as they are now; a service account's token changes every hour."""
    header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    scheme, _, token = (header or "").rpartition(" ")
    return Credentials(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme.capitalize() or None,
        token=token or None,
    )


def own_namespace() -> str:
    """The namespace of the pod that this runs in; `default` elsewhere."""
    file = SERVICE_ACCOUNT / "namespace"
    return file.read_text().strip() if file.is_file() else "default"
