"""The Debian packages that the cluster needs: installed only when they are missing."""

import os
import shutil

from .errors import CommandFailedError, UnavailableError
from .progress import run, step

PACKAGES = (
    "buildah",
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "nftables",
    "openssl",
    "runc",
    "util-linux",
)


def install() -> None:
    """Install the missing packages with apt-get."""
    if os.geteuid() != 0:
        raise UnavailableError("the test cluster needs root: it makes namespaces, mounts and containers")
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise UnavailableError("the test cluster needs Debian's packages, and there is no apt-get here")
    missing = [package for package in PACKAGES if not _is_installed(package)]
    if not missing:
        return
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    with step(f"installing {', '.join(missing)}"):
        run([*apt, "update"], env=environment, what="apt-get update")
        run([*apt, "install", "--no-install-recommends", *missing], env=environment, what="apt-get install")


def _is_installed(package: str) -> bool:
    try:
        return run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package]) == "installed"
    except CommandFailedError:
        return False
