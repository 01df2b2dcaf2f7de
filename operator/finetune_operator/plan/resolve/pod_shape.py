"""Whether a podTemplate still has the parts that the operator puts its own into. The API server judges the rest."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from finetune_operator.api.status import Reason
from finetune_operator.plan.model.names import CONTAINER
from finetune_operator.plan.model.problems import SpecProblem


def check_shape(template: Mapping[str, JsonValue]) -> None:
    """Raises `SpecProblem` when a part that the operator fills in is null, or is no mapping (or no list)."""
    metadata = _mapping(template, "metadata", "", or_null=True)
    for part in ("labels", "annotations"):
        _mapping(metadata, part, ".metadata", or_null=True)
    spec = _mapping(template, "spec", "")
    containers = spec.get("containers", [])
    if not isinstance(containers, list):
        raise _problem(".spec.containers", "must be a list of containers; leave it out to change none")
    trainer = next((entry for entry in containers if isinstance(entry, dict) and entry.get("name") == CONTAINER), {})
    here = f".spec.containers[{CONTAINER}]"
    resources = _mapping(trainer, "resources", here, or_null=True)
    for part in ("limits", "requests"):
        _mapping(resources, part, f"{here}.resources", or_null=True)


def _mapping(parent: Mapping[str, JsonValue], key: str, path: str, *, or_null: bool = False) -> Mapping[str, JsonValue]:
    value = parent.get(key, {})
    if isinstance(value, dict):
        return value
    if value is None and or_null:
        return {}
    raise _problem(f"{path}.{key}", "must be a mapping; leave it out to change nothing in it")


def _problem(path: str, message: str) -> SpecProblem:
    return SpecProblem(Reason.INVALID_SPEC, f"spec.podTemplate{path}: {message}")
