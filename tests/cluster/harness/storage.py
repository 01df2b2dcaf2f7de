"""Dynamic volumes: a folder on the node for every claim, writable by pods that are not root.

The controller manager's own hostPath provisioner makes folders that only root can write to.
Runs as a component of the node: `python -m <harness>.storage INDEX`.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .api import Api, RefusedError
from .layout import Instance
from .progress import say

PROVISIONER = "finetune-operator.io/test-folders"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
CONFLICT, NOT_FOUND = 409, 404

STORAGE_CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
    "allowVolumeExpansion": True,
}


def wants_volume(claim: dict[str, Any]) -> bool:
    """Whether a claim is of our class and has no volume yet."""
    spec = claim["spec"]
    ours = spec.get("storageClassName") == STORAGE_CLASS["metadata"]["name"]
    return ours and not spec.get("volumeName") and "deletionTimestamp" not in claim["metadata"]


def volume_for(claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The volume that a claim gets: bound to it, with the modes and the size it asks for."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": folder.name,
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(folder), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
            "volumeMode": spec.get("volumeMode", "Filesystem"),
        },
    }


class Provisioner:
    """Makes and removes the volumes of one cluster."""

    def __init__(self, instance: Instance) -> None:
        self._api = Api(instance)
        self._folders = instance.volumes

    def claim_seen(self, claim: dict[str, Any]) -> None:
        if not wants_volume(claim):
            return
        folder = self._folders / f"pvc-{claim['metadata']['uid']}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        try:
            self._api.create(VOLUMES, volume_for(claim, folder))
        except RefusedError as error:
            if error.status != CONFLICT:
                raise

    def volume_seen(self, volume: dict[str, Any]) -> None:
        annotations = volume["metadata"].get("annotations", {})
        ours = annotations.get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if not ours or volume.get("status", {}).get("phase") != "Released":
            return
        shutil.rmtree(self._folders / volume["metadata"]["name"], ignore_errors=True)
        try:
            self._api.delete(f"{VOLUMES}/{volume['metadata']['name']}")
        except RefusedError as error:
            if error.status != NOT_FOUND:
                raise


def follow(api: Api, path: str, seen: Callable[[dict[str, Any]], None]) -> None:
    """Show every object and every change of it, for ever; a lost watch starts again after a second."""
    while True:
        try:
            for kind, manifest in api.watch(path):
                if kind != "DELETED":
                    seen(manifest)
        except (OSError, ValueError, RefusedError) as error:
            say(f"watch of {path} lost: {error}")
        time.sleep(1)


def main() -> None:
    instance = Instance(int(sys.argv[1]))
    instance.volumes.mkdir(exist_ok=True)
    provisioner = Provisioner(instance)
    arguments = (Api(instance), VOLUMES, provisioner.volume_seen)
    threading.Thread(target=follow, args=arguments, daemon=True).start()
    follow(Api(instance), CLAIMS, provisioner.claim_seen)


if __name__ == "__main__":
    main()
