"""How a pod runs a program of the host's virtual environment on a small image."""

import sys
from pathlib import Path
from typing import Any

from .images import BASE

CONTAINER = "trainer"
# What compiled packages and compilers look for outside /usr; mounted only where the host has it as a folder.
SYSTEM = ("/lib", "/lib64", "/bin", "/etc/alternatives", "/etc/ssl")


def venv_pod_template(venv: Path, repo: Path) -> dict[str, Any]:
    """A partial PodTemplateSpec in which the container `trainer` finds the host's Python and packages.

    Every mount is read-only and at the same path as on the host, because a virtual environment and
    editable installs hold absolute paths. A pod that is not root needs no more than what others may read.
    """
    mounted = _outermost([Path("/usr"), *_system_folders(), Path(sys.base_prefix), venv.absolute(), repo.absolute()])
    volumes = [
        {"name": f"host-{number}", "hostPath": {"path": str(path), "type": "Directory"}}
        for number, path in enumerate(mounted)
    ]
    mounts = [
        {"name": f"host-{number}", "mountPath": str(path), "readOnly": True} for number, path in enumerate(mounted)
    ]
    container = {
        "name": CONTAINER,
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "PATH", "value": f"{venv.absolute()}/bin:/usr/local/bin:/usr/bin:/bin"},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            # The trainer of this checkout, also where several share an environment.
            {"name": "PYTHONPATH", "value": f"{repo.absolute()}/trainer-image"},
        ],
        "volumeMounts": mounts,
    }
    return {"spec": {"volumes": volumes, "containers": [container]}}


def _system_folders() -> list[Path]:
    return [Path(name) for name in SYSTEM if Path(name).is_dir() and not Path(name).is_symlink()]


def _outermost(paths: list[Path]) -> list[Path]:
    """The paths that lie in no other of them: /usr brings what is installed under it."""
    return [path for path in dict.fromkeys(paths) if not any(other in path.parents for other in paths)]
