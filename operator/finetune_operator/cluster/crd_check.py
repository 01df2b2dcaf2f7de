"""Whether the cluster's CustomResourceDefinitions have every field of this version: Helm does not upgrade them.

Read from the API server's OpenAPI document, which everybody may read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from finetune_operator.api.base import GROUP, VERSION
from finetune_operator.api.crd import definitions
from finetune_operator.cluster.client import Client

_OPENAPI: Final = f"/openapi/v3/apis/{GROUP}/{VERSION}"
_GVK: Final = "x-kubernetes-group-version-kind"
_OPEN: Final = "x-kubernetes-preserve-unknown-fields"
_NAMED: Final = 5

Schema = Mapping[str, Any]


async def missing_fields(client: Client) -> str | None:
    """What the cluster's CRDs lack, in words; None when they lack nothing. Raises ApiError."""
    served = _by_kind(await client.get(_OPENAPI))
    told = [words for crd in definitions() if (words := _lack(crd, served)) is not None]
    return "; ".join(told) or None


def _by_kind(document: Schema) -> dict[str, Schema]:
    schemas = document.get("components", {}).get("schemas", {})
    return {gvk["kind"]: schema for schema in schemas.values() for gvk in schema.get(_GVK, ()) if "kind" in gvk}


def _lack(crd: Schema, served: Mapping[str, Schema]) -> str | None:
    kind = crd["spec"]["names"]["kind"]
    wanted = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    if kind not in served:
        return None
    there = served[kind].get("properties", {})
    parts = [part for part in ("spec", "status") if part in wanted]
    fields = [field for part in parts for field in _missing(part, wanted[part], there.get(part))]
    if not fields:
        return None
    more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
    return f"the {kind} CRD lacks {', '.join(fields[:_NAMED])}{more}: apply crds/ of this version"


def _missing(path: str, wanted: Schema, there: Schema | None) -> Iterator[str]:
    """Paths of the fields that are wanted and not there; of a field that is not there nothing below it."""
    if there is None:
        yield path
        return
    if there.get(_OPEN):
        return
    for name, schema in wanted.get("properties", {}).items():
        yield from _missing(f"{path}.{name}", schema, there.get("properties", {}).get(name))
    if "items" in wanted:
        yield from _missing(f"{path}[]", wanted["items"], there.get("items"))
    if isinstance(wanted.get("additionalProperties"), Mapping):
        below = there.get("additionalProperties")
        yield from _missing(f"{path}.*", wanted["additionalProperties"], below if isinstance(below, Mapping) else None)
