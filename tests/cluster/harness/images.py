"""Container images without a registry: built with buildah, imported into the cluster's containerd."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from .build import cache
from .errors import CommandFailedError
from .layout import Instance
from .progress import run, step

SANDBOX = "localhost/finetune-sandbox:test"
BASE = "localhost/finetune-base:test"
BUSYBOX = Path("/bin/busybox")
# A static busybox crashes where it asks for a name: wget does, nc with an address and nslookup do not.
# As on Debian, /bin and /lib lead into /usr: the host's /usr mounted over the image's brings all of it.
BASE_CONTAINERFILE = """\
FROM scratch
COPY root /
RUN ["/usr/bin/busybox", "--install", "-s", "/usr/bin"]
ENV PATH=/usr/local/bin:/usr/bin
USER 65532:65532
WORKDIR /tmp
CMD ["sh"]
"""
SANDBOX_CONTAINERFILE = """\
FROM scratch
COPY root/usr/bin/busybox /sleep
USER 65532:65532
ENTRYPOINT ["/sleep", "2147483647"]
"""
USERS = "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n"
GROUP = "root:x:0:\nnonroot:x:65532:\n"
BUILT_IN = {SANDBOX: SANDBOX_CONTAINERFILE, BASE: BASE_CONTAINERFILE}


def build_archive(
    containerfile: Path, context: Path, tag: str, archive: Path, build_args: Mapping[str, str] | None = None
) -> None:
    """Build an image and write it as a docker archive; `localhost/finetune-base:test` may be its base."""
    arguments = [part for name, value in (build_args or {}).items() for part in ("--build-arg", f"{name}={value}")]
    archive.unlink(missing_ok=True)
    buildah("build", "--pull-never", "--file", containerfile, *arguments, "--tag", tag, context)
    buildah("push", tag, f"docker-archive:{archive}:{tag}")


def build_image(
    instance: Instance, containerfile: Path, context: Path, tag: str, build_args: Mapping[str, str] | None = None
) -> None:
    """Build an image and make it known to the cluster's containerd as `tag`; pods use pullPolicy IfNotPresent."""
    archive = instance.home / f"image-{os.getpid()}.tar"
    _load_base()
    with step(f"building image {tag}"):
        build_archive(containerfile, context, tag, archive, build_args)
        import_archive(instance, archive)
    archive.unlink()


def import_archive(instance: Instance, archive: Path) -> None:
    _ctr(instance, "images", "import", str(archive))


def is_serving(instance: Instance) -> bool:
    """Whether containerd answers."""
    try:
        _ctr(instance, "images", "list", "-q")
    except CommandFailedError:
        return False
    return True


def import_built_in(instance: Instance) -> None:
    """Import the sandbox and the base image, which `built_in` made."""
    for archive in built_in():
        import_archive(instance, archive)


def built_in() -> list[Path]:
    """The archives of the sandbox and the base image, built when the cache has none."""
    return [_built_in(tag, containerfile) for tag, containerfile in BUILT_IN.items()]


def buildah(*arguments: str | Path) -> str:
    """Run buildah where its mounts and processes end with it, with storage in the cache."""
    storage = cache() / "buildah"
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    options: list[str | Path] = [
        "--root",
        storage / "root",
        "--runroot",
        storage / "run",
        "--storage-driver",
        "overlay",
    ]
    return run([*isolated, "buildah", *options, *arguments], env=dict(os.environ) | {"BUILDAH_ISOLATION": "chroot"})


def _load_base() -> None:
    """Make the base image known to buildah, whose storage may have been emptied since it was built."""
    try:
        buildah("inspect", "--type", "image", BASE)
    except CommandFailedError:
        buildah("pull", f"docker-archive:{_built_in(BASE, BUILT_IN[BASE])}")


def _built_in(tag: str, containerfile: str) -> Path:
    digest = hashlib.sha256(containerfile.encode() + USERS.encode() + BUSYBOX.read_bytes()).hexdigest()
    folder = cache() / "images"
    archive = folder / f"{tag.split('/')[1].replace(':', '-')}-{digest[:16]}.tar"
    if archive.exists():
        return archive
    context = folder / f"{archive.stem}.{os.getpid()}"
    _write_root(context / "root")
    (context / "Containerfile").write_text(containerfile)
    unfinished = context / "image.tar"
    with step(f"building image {tag}"):
        build_archive(context / "Containerfile", context, tag, unfinished)
    unfinished.replace(archive)
    run(["rm", "-rf", context])
    return archive


def _write_root(root: Path) -> None:
    for folder in ("etc", "tmp", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "usr/local/bin"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text(GROUP)
    busybox = root / "usr/bin/busybox"
    busybox.write_bytes(BUSYBOX.read_bytes())
    busybox.chmod(0o755)


def _ctr(instance: Instance, *arguments: str) -> str:
    return run(["ctr", "--address", instance.containerd_socket, "--namespace", "k8s.io", *arguments])
