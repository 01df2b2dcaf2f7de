"""How a job's values meet its template's: deep merge of blocks, strategic merge of pod templates.

Both follow the patch types of Kubernetes: mappings merge key by key, null takes a key away, lists
replace. In a pod template, lists whose entries have a name of their own (containers, volumes, env, ...)
merge entry by entry, as `kubectl patch --type=strategic` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

Block = dict[str, JsonValue]

_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""The field that names an entry of each list that merges by entry."""

_APPENDED: Final = frozenset({"tolerations", "envFrom"})
_ONE_OF: Final = frozenset({"volumes", "env"})
"""Lists whose entries hold one of several alternatives: what the patch does not name goes (retainKeys)."""


_OBJECT: Final[Mapping[str, Any]] = {}
_OBJECTS: Final = (_OBJECT,)
_CONTAINER: Final[Mapping[str, Any]] = {
    "image": "",
    "resources": {"limits": _OBJECT, "requests": _OBJECT},
    "securityContext": _OBJECT,
    **dict.fromkeys(("env", "envFrom", "ports", "volumeMounts", "volumeDevices"), _OBJECTS),
}
_POD: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("containers", "initContainers", "ephemeralContainers"), (_CONTAINER,)),
    **dict.fromkeys(("affinity", "nodeSelector", "securityContext"), _OBJECT),
    **dict.fromkeys(("volumes", "tolerations", "imagePullSecrets", "resourceClaims"), _OBJECTS),
    **dict.fromkeys(("hostAliases", "schedulingGates", "topologySpreadConstraints"), _OBJECTS),
}
_TEMPLATE: Final[Mapping[str, Any]] = {"metadata": {"labels": _OBJECT, "annotations": _OBJECT}, "spec": _POD}
"""What the fields of a PodTemplateSpec that are merged, or read after the merge, must be."""
_CONFINEMENT: Final = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")
_NOT_REMOVABLE: Final = frozenset({"metadata", "labels", "spec", "containers", "image"})
"""Without these the operator's own pod is none: null cannot take them away."""


class MergeError(Exception):
    """A partial pod template cannot be merged. `path` is where, `message` why."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path} {message}")
        self.path = path
        self.message = message


def check_pod_template(template: Mapping[str, JsonValue]) -> None:
    """Raises `MergeError` for a partial PodTemplateSpec in which something is not what a pod has there.

    The API server cannot tell: it keeps a podTemplate as it is, whatever it holds.
    """
    for key in template:
        if key not in _TEMPLATE:
            raise MergeError(f".{key}", "is no field of a PodTemplateSpec: put it under spec or metadata, or remove it")
    _check(template, _TEMPLATE, "")
    _check_metadata(template.get("metadata"))


def _check_metadata(metadata: JsonValue) -> None:
    """Finalizers would keep a pod for ever, and an annotation would lift its confinement."""
    if not isinstance(metadata, dict):
        return
    for key in metadata:
        if key not in _TEMPLATE["metadata"]:
            raise MergeError(f".metadata.{key}", "is not passed on to pods: remove it (labels and annotations are)")
    annotations = metadata.get("annotations")
    for key in annotations if isinstance(annotations, dict) else ():
        if key.startswith(_CONFINEMENT):
            raise MergeError(
                f".metadata.annotations.{key}", "is obsolete: set securityContext.appArmorProfile of the container"
            )


def _check(value: JsonValue | Mapping[str, JsonValue], shape: Any, path: str) -> None:
    if isinstance(shape, str):
        if not (isinstance(value, str) and value):
            raise MergeError(path, "must be a text: give it a value, or remove it")
    elif isinstance(shape, tuple):
        if not isinstance(value, list):
            raise MergeError(path, "must be a list: write its entries with '-', or remove it")
        for number, entry in enumerate(value):
            _check(entry, shape[0], f"{path}[{number}]")
    elif not isinstance(value, Mapping):
        raise MergeError(path, "must be an object: give it fields, or remove it")
    else:
        for key, below in shape.items():
            if key in value and not (value[key] is None and key not in _NOT_REMOVABLE):
                _check(value[key], below, f"{path}.{key}")


def deep_merge(base: Mapping[str, JsonValue], patch: Mapping[str, JsonValue]) -> Block:
    """`base` with `patch` over it: mappings merge, lists and scalars replace, null removes (RFC 7386)."""
    merged: Block = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = deep_merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def merge_pod_templates(base: Mapping[str, JsonValue], patch: Mapping[str, JsonValue]) -> Block:
    """`base` with the partial PodTemplateSpec `patch` over it. Raises `MergeError`."""
    return _without_nulls(_mapping(base, patch, "") if patch else base)


def compose_pod_templates(*layers: Mapping[str, JsonValue] | None) -> Block:
    """One partial PodTemplateSpec that does what `layers` do one after the other: nulls stay, to remove later.

    Raises `MergeError`.
    """
    composed: Block = {}
    for layer in layers:
        composed = _mapping(composed, layer or {}, "")
    return composed


def _mapping(base: Mapping[str, JsonValue], patch: Mapping[str, JsonValue], path: str) -> Block:
    merged: Block = dict(base)
    for key, value in patch.items():
        merged[key] = None if value is None else _value(key, merged.get(key), value, f"{path}.{key}")
    return merged


def _without_nulls(block: Mapping[str, JsonValue]) -> Block:
    return {key: _pruned(value) for key, value in block.items() if value is not None}


def _pruned(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return _without_nulls(value)
    return [_pruned(entry) for entry in value] if isinstance(value, list) else value


def _value(key: str, base: JsonValue, patch: JsonValue, path: str) -> JsonValue:
    if isinstance(patch, dict):
        return _mapping(base if isinstance(base, dict) else {}, patch, path)
    if not isinstance(patch, list) or not (key in _KEYS or key in _APPENDED):
        return patch
    below = base if isinstance(base, list) else []
    if key in _KEYS:
        return _named_list(key, below, patch, path)
    return below + [entry for entry in patch if entry not in below]


def _named_list(key: str, base: list[JsonValue], patch: list[JsonValue], path: str) -> JsonValue:
    """Entries that the base has keep their place, new ones follow."""
    name_field = _KEYS[key]
    merged: dict[JsonValue, Block] = {_name(entry, name_field, path): _block(entry) for entry in base}
    for number, entry in enumerate(patch):
        here = f"{path}[{number}]"
        name = _name(entry, name_field, here)
        below = merged.get(name, {})
        if key in _ONE_OF:
            below = {field: value for field, value in below.items() if field in _block(entry)}
        merged[name] = _mapping(below, _block(entry), here)
    return list(merged.values())


def _name(entry: JsonValue, field: str, path: str) -> JsonValue:
    name = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(name, str | int):
        raise MergeError(path, f"needs a {field}: entries of this list are merged by it")
    return name


def _block(entry: JsonValue) -> Block:
    return entry if isinstance(entry, dict) else {}
