"""Turns the pydantic models into CustomResourceDefinitions: `python -m finetune_operator.api.crd crds/`.

Kubernetes wants structural schemas: no references, no null types, one type per field. pydantic's JSON
Schema is rewritten to that, and what only the API server can check (CEL across fields, immutability) is
added here, next to the printer columns.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from finetune_operator.api.base import GROUP, VERSION
from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Resource
from finetune_operator.api.rules import GPUS, NAME, immutability
from finetune_operator.api.spec import JobSpec, TemplateSpec
from finetune_operator.api.status import JobStatus

Schema = dict[str, Any]

_KEPT: Final = frozenset(
    {"type", "description", "default", "enum", "format", "minimum", "maximum", "minLength", "maxLength", "pattern"}
    | {"minItems", "maxItems", "minProperties", "maxProperties", "required"}
    | {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-validations"}
)


def structural(model: type[BaseModel]) -> Schema:
    """The model's schema as Kubernetes accepts it (structural, references resolved)."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _resolve(node, definitions)
    if node.get("x-kubernetes-int-or-string"):
        return _pick(node, without="type")
    result = _pick(node)
    if "const" in node:
        result["enum"] = [node["const"]]
    if "properties" in node:
        result["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if node.get("type") == "array":
        result["items"] = _convert(node.get("items", {}), definitions)
    if "type" not in result:
        result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _resolve(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """The node with its reference followed and its null alternative dropped; outer words win."""
    inner: Schema | None = None
    if "$ref" in node:
        inner = definitions[node["$ref"].rsplit("/", 1)[1]]
    elif "allOf" in node and len(node["allOf"]) == 1:
        inner = node["allOf"][0]
    elif "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (inner,) = (option for option in node["anyOf"] if option.get("type") != "null")
    if inner is None:
        return node
    outer = {key: value for key, value in node.items() if key not in {"$ref", "allOf", "anyOf"}}
    return {**_resolve(inner, definitions), **outer}


def _pick(node: Schema, without: str = "") -> Schema:
    """The keywords that a structural schema may hold. A default of null or of an object says nothing."""
    kept = {key: value for key, value in node.items() if key in _KEPT and key != without}
    if kept.get("default") is None or isinstance(kept.get("default"), dict | list):
        kept.pop("default", None)
    if "description" in kept:
        kept["description"] = " ".join(str(kept["description"]).split())
    return kept


def _column(name: str, path: str, kind: str = "string", *, priority: int = 0) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


_AGE: Final = _column("Age", ".metadata.creationTimestamp", "date")
_JOB_COLUMNS: Final = [
    _column("Phase", ".status.phase"),
    _column("Progress", ".status.progress.percent"),
    _column("ETA", ".status.progress.eta"),
    _column("Loss", ".status.metrics.loss"),
    _column("GPUs", ".spec.gpus", "integer"),
    _AGE,
    _column("Model", ".spec.model.uri", priority=1),
    _column("Template", ".spec.template.name", priority=1),
    _column("Attempt", ".status.attempt", "integer", priority=1),
    _column("Reason", ".status.reason", priority=1),
]
_JOB_SELECTABLE: Final = [{"jsonPath": ".status.phase"}, {"jsonPath": ".status.reason"}]
"""What `kubectl get --field-selector` finds jobs by."""
_TEMPLATE_COLUMNS: Final = [
    _column("Method", ".spec.training.method"),
    _column("Description", ".spec.description"),
    _AGE,
]


def _job_schema() -> Schema:
    spec, status = structural(JobSpec), structural(JobStatus)
    spec["x-kubernetes-validations"] = [GPUS.as_schema()]
    conditions = status["properties"]["conditions"]
    conditions.update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    rules = [NAME.as_schema(), immutability()]
    return _root(FineTuneJob, {"spec": spec, "status": status}, rules)


def _template_schema(kind: type[Resource]) -> Schema:
    return _root(kind, {"spec": structural(TemplateSpec)}, [])


def _root(kind: type[Resource], parts: dict[str, Schema], rules: list[dict[str, str]]) -> Schema:
    head = {name: {"type": "string"} for name in ("apiVersion", "kind")}
    schema: Schema = {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"],
        "properties": {**head, "metadata": {"type": "object"}, **parts},
    }
    return schema | ({"x-kubernetes-validations": rules} if rules else {})


def _definition(kind: type[Resource], schema: Schema, columns: list[Schema]) -> Schema:
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
        version["selectableFields"] = _JOB_SELECTABLE
    names: Schema = {
        "kind": kind.__name__,
        "listKind": f"{kind.__name__}List",
        "plural": kind.plural,
        "singular": kind.__name__.lower(),
        "shortNames": [kind.short_name],
        "categories": list(kind.categories),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": kind.scope, "names": names, "versions": [version]},
    }


def definitions() -> list[Schema]:
    """The three CustomResourceDefinitions."""
    templates = (FineTuneTemplate, ClusterFineTuneTemplate)
    return [
        _definition(FineTuneJob, _job_schema(), _JOB_COLUMNS),
        *(_definition(kind, _template_schema(kind), _TEMPLATE_COLUMNS) for kind in templates),
    ]


class _Plain(yaml.SafeDumper):
    """Writes repeated parts out: an alias would be harder to read than the few lines it saves."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def write(folder: Path) -> list[Path]:
    """Writes one file for each definition and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for definition in definitions():
        path = folder / f"{definition['spec']['names']['plural']}.yaml"
        text = yaml.dump(definition, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
        path.write_text("# Generated from operator/finetune_operator/api by `make generate`.\n" + text)
        written.append(path)
    return written


if __name__ == "__main__":
    for target in sys.argv[1:]:
        write(Path(target))
