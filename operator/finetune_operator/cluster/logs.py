"""A pod's log, from where the last reading ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from finetune_operator.cluster.client import ApiError, Client
from finetune_operator.plan.model.names import CONTAINER
from finetune_operator.runtime.kinds import PODS

_SECONDS: Final = 30.0


@dataclass
class PodLog:
    """Reads one pod's log piece by piece. Lines carry the kubelet's time, by which a reading goes on."""

    client: Client
    namespace: str
    pod: str
    _last: str = ""

    async def more(self) -> list[str]:
        """The lines since the last call; none while the container has not started."""
        query = [("container", CONTAINER), ("timestamps", "true")]
        if self._last:
            query.append(("sinceTime", self._last.partition(".")[0].rstrip("Z") + "Z"))
        path = f"{PODS.path(self.namespace, self.pod)}/log"
        try:
            text = (await self.client.raw(path, query, _SECONDS, largest=None)).decode(errors="replace")
        except ApiError as error:
            if error.status in (400, 404):  # not started yet; gone
                return []
            raise
        stamped = [line.partition(" ") for line in text.splitlines()]
        new = [(stamp, line) for stamp, _, line in stamped if stamp > self._last]
        if new:
            self._last = new[-1][0]
        return [line for _, line in new]
