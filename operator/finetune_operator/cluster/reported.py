"""What Kubernetes reports in the same way of Jobs, pods and containers: conditions, and a reason with a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def condition(status: Json, wanted: str) -> Json | None:
    """The condition of this type, if it is true."""
    found = (c for c in status.get("conditions") or () if c["type"] == wanted and c["status"] == "True")
    return next(found, None)


def words(told: Json) -> str:
    """The reason and the message, as far as there are any."""
    return ": ".join(filter(None, (told.get("reason"), told.get("message"))))
