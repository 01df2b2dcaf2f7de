"""A base image with this machine's Python and uv, for building the operator's image without a registry of images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BASE

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PYTHON = "localhost/finetune-python:test"
CONTAINERFILE = f"""\
FROM {BASE}
USER 0:0
COPY root /
ENV PATH=/opt/python/bin:/usr/local/bin:/usr/bin SSL_CERT_FILE={CERTIFICATES}
"""
FOR_WHEELS = {
    *("libgcc_s.so.1", "libstdc++.so.6", "librt.so.1", "libpthread.so.0", "libdl.so.2", "libutil.so.1"),
    *("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2"),
}
LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "tkinter", "config-*", "*.a")


def build(cluster: Cluster, context: Path) -> str:
    """Build and import the image; its name."""
    root = context / "root"
    _copy_python(root / "opt" / "python")
    shutil.copy2(Path(sys.prefix) / "bin" / "uv", root / "opt" / "python" / "bin" / "uv")
    for library in _libraries(root / "opt" / "python"):
        _copy(library, root)
    shutil.copy2(CERTIFICATES, _made(root / CERTIFICATES.relative_to("/")))
    file = context / "Containerfile"
    file.write_text(CONTAINERFILE)
    cluster.build_image(file, context, PYTHON)
    return PYTHON


def _copy_python(target: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    shutil.copytree(base / "lib" / version, target / "lib" / version, ignore=LEFT_OUT, symlinks=True)
    (target / "bin").mkdir()
    shutil.copy2((base / "bin" / version).resolve(), target / "bin" / version)
    (target / "bin" / "python3").symlink_to(version)


def _libraries(python: Path) -> set[Path]:
    """Shared libraries, the loader among them, that the interpreter and its modules need."""
    programs = [*python.glob("bin/python3.*"), python / "bin" / "uv", *python.rglob("lib-dynload/*.so")]
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    listed += "".join(line + "\n" for line in known.splitlines() if line.split(maxsplit=1)[0] in FOR_WHEELS)
    words = (word for line in listed.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":") and Path(word).exists()}


def _copy(library: Path, root: Path) -> None:
    """Under the name that the loader looks for; /lib and /lib64 lead into /usr in the image."""
    name = library.relative_to("/")
    inside = Path("usr") / name if name.parts[0] in {"lib", "lib64"} else name
    shutil.copy2(library.resolve(), _made(root / inside))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
