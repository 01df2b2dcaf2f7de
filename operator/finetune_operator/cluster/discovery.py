"""Whether the API server knows our kinds."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from finetune_operator.cluster.client import ApiError, Client, NotFoundError
from finetune_operator.runtime.kinds import CLUSTER_TEMPLATES, FINETUNE_JOBS, TEMPLATES

_log = structlog.get_logger(__name__)
_PAUSE_SECONDS: Final = 2.0
_OWN: Final = frozenset({FINETUNE_JOBS.plural, TEMPLATES.plural, CLUSTER_TEMPLATES.plural})


async def wait_for_kinds(client: Client) -> None:
    """Waits until the API server answers, and the CustomResourceDefinitions are there."""
    told = ""
    while missing := await _missing(client):
        if missing != told:
            _log.warning("waiting", why=missing)
            told = missing
        await asyncio.sleep(_PAUSE_SECONDS)


async def _missing(client: Client) -> str:
    try:
        found = await client.get(FINETUNE_JOBS.root)
    except NotFoundError:
        found = {"resources": []}
    except ApiError as error:
        return f"the API server does not say which kinds it has: {error}"
    absent = _OWN - {resource["name"] for resource in found.get("resources") or ()}
    if not absent:
        return ""
    return (
        f"CustomResourceDefinitions are missing ({', '.join(sorted(absent))}): install them with kubectl apply -f crds/"
    )
