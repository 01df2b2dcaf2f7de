"""Addresses that lead to files which are already there: `file://`, `pvc://` and `pkg://`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from finetune_trainer.errors import NotFound
from finetune_trainer.uris.address import Address
from finetune_trainer.workspace import Paths


def path_of(address: Address, paths: Paths) -> Path:
    """The file or folder that the address names, whether or not it exists. Raises `NotFound` for its container."""
    match address.scheme:
        case "file":
            return Path(address.rest)
        case "pvc":
            return _in_volume(address, paths)
        case _:
            return _in_package(address)


def existing_path(address: Address, paths: Paths) -> Path:
    """Raises `NotFound` unless the address names something that can be read."""
    path = path_of(address, paths)
    try:
        if path.exists():
            return path
    except PermissionError as error:
        raise address.denied("make it readable for the pod's user (fsGroup, file modes)") from error
    raise address.missing()


def _in_volume(address: Address, paths: Paths) -> Path:
    claim, _, rest = address.rest.partition("/")
    volume = paths.volumes / claim
    if not volume.is_dir():
        raise address.missing(
            f"cannot be read: the claim `{claim}` is not mounted", f"create the PersistentVolumeClaim `{claim}`"
        )
    return volume / rest


def _in_package(address: Address) -> Path:
    """Found without importing the package: a package that only carries data may not be importable."""
    module, _, rest = address.rest.partition("/")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotFound(
            f"{address.kind} `{address.uri}`: the Python package `{module}` is not installed in the trainer's image",
            field=address.field,
            advice=f"use an image that has `{module.split('.', maxsplit=1)[0]}`, or another address",
        )
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))) / rest
    raise address.missing(f"names the module `{module}`, which is not a package", "name a package that has files")
