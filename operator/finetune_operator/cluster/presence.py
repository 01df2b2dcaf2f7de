"""Whether Secrets and claims exist. Only metadata is asked for: a Secret's values never reach the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from finetune_operator.cluster.client import METADATA_ONLY, Client, NotFoundError, RefusedError
from finetune_operator.plan.model.observed import Presence
from finetune_operator.runtime.kinds import BadNameError, Kind


async def presence(client: Client, kind: Kind, namespace: str, names: Iterable[str]) -> dict[str, Presence]:
    """Looks for objects of a kind by name."""
    wanted = sorted(names)
    found = await asyncio.gather(*(_look(client, kind, namespace, name) for name in wanted))
    return dict(zip(wanted, found, strict=True))


async def _look(client: Client, kind: Kind, namespace: str, name: str) -> Presence:
    try:
        await client.get(kind.path(namespace, name), accept=METADATA_ONLY)
    except (NotFoundError, BadNameError):
        return Presence.MISSING
    except RefusedError:
        return Presence.UNREADABLE
    return Presence.PRESENT
