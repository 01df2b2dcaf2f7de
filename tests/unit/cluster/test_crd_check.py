from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.unit.cluster.api_server import ApiServer, status

from finetune_operator.api.crd import definitions
from finetune_operator.cluster.client import ApiError, Client
from finetune_operator.cluster.crd_check import missing_fields

OPENAPI = "/openapi/v3/apis/finetune-operator.io/v1alpha1"
GROUP = "io.finetune-operator.v1alpha1"


def document() -> dict[str, Any]:
    """What an API server publishes that has the CRDs of this very version."""
    schemas: dict[str, Any] = {"io.k8s.ObjectMeta": {"properties": {}}}
    for crd in definitions():
        kind = crd["spec"]["names"]["kind"]
        schema = copy.deepcopy(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        gvk = {"group": "finetune-operator.io", "version": "v1alpha1", "kind": kind}
        schemas[f"{GROUP}.{kind}"] = schema | {"x-kubernetes-group-version-kind": [gvk]}
    return {"components": {"schemas": schemas}}


def fields(served: dict[str, Any], *path: str) -> dict[str, Any]:
    found = served["components"]["schemas"][f"{GROUP}.FineTuneJob"]
    for step in path:
        found = found["items"] if step == "[]" else found["properties"][step]
    properties: dict[str, Any] = found["properties"]
    return properties


async def test_crds_of_this_version_lack_nothing(server: ApiServer, client: Client) -> None:
    server.answer("GET", OPENAPI, document())
    assert await missing_fields(client) is None


async def test_an_older_crd_is_named_with_the_fields_that_it_lacks(server: ApiServer, client: Client) -> None:
    older = document()
    del fields(older, "status", "attempts", "[]")["runningSince"]
    del fields(older, "spec", "checkpoints")["resumeFrom"]
    server.answer("GET", OPENAPI, older)
    assert await missing_fields(client) == (
        "the FineTuneJob CRD lacks spec.checkpoints.resumeFrom, status.attempts[].runningSince: "
        "apply crds/ of this version"
    )


async def test_a_field_that_has_lost_its_own_fields_is_named_by_them(server: ApiServer, client: Client) -> None:
    older = document()
    fields(older, "spec")["checkpoints"] = {"type": "object"}
    server.answer("GET", OPENAPI, older)
    told = await missing_fields(client)
    assert told is not None
    assert "spec.checkpoints.every" in told


async def test_of_many_fields_the_first_are_named(server: ApiServer, client: Client) -> None:
    older = document()
    fields(older, "status").clear()
    server.answer("GET", OPENAPI, older)
    told = await missing_fields(client)
    assert told is not None
    lacking = len(fields(document(), "status"))
    assert f" and {lacking - told.count('status.')} more: apply crds/" in told
    assert len(told) < 400


async def test_a_newer_crd_lacks_nothing(server: ApiServer, client: Client) -> None:
    newer = document()
    fields(newer, "status")["fromTheFuture"] = {"type": "string"}
    server.answer("GET", OPENAPI, newer)
    assert await missing_fields(client) is None


async def test_what_takes_any_field_lacks_none(server: ApiServer, client: Client) -> None:
    loose = document()
    served = loose["components"]["schemas"][f"{GROUP}.FineTuneJob"]["properties"]
    served["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    server.answer("GET", OPENAPI, loose)
    assert await missing_fields(client) is None


@pytest.mark.parametrize("code", [403, 404, 503])
async def test_a_document_that_cannot_be_had_says_nothing(server: ApiServer, client: Client, code: int) -> None:
    server.answer("GET", OPENAPI, status(code))
    with pytest.raises(ApiError):
        await missing_fields(client)
