"""A reconciler whose API server, clock and events are a test's."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.cluster.conftest import World

from finetune_operator.api.resources import ObjectMeta
from finetune_operator.cluster.events import EventSender
from finetune_operator.plan.model.plan import JobEvent
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.reconcile import Reconciler
from finetune_operator.runtime.kinds import JobKey

BOT = JobKey("team", "bot")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/bot"
STATUS = f"{OWN}/status"


@dataclass
class Events(EventSender):
    """Remembers what is posted; sends nothing."""

    posted: list[JobEvent] = field(default_factory=list)

    def post(self, job: ObjectMeta, event: JobEvent, moment: datetime) -> None:
        self.posted.append(event)


@dataclass
class Tried:
    """A reconciler, its clock, and what it was told to forget."""

    world: World
    events: Events
    now: datetime = NOW
    forgotten: list[JobKey] = field(default_factory=list)
    rested: list[JobKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        self.reconciler = Reconciler(
            world.store,
            world.client,
            world.observer,
            world.applier,
            self.events,
            self.forgotten.append,
            self.rested.append,
            PlanSettings(),
            lambda: self.now,
        )

    async def once(self) -> float | None:
        return await self.reconciler.reconcile(BOT)

    def wrote(self) -> list[tuple[str, str]]:
        return [(one.method, one.path) for one in self.world.server.asked if one.method != "GET"]

    async def fails(self, error: type[Exception] = Exception, *, after: float = 0.0) -> None:
        self.now += timedelta(seconds=after)
        with pytest.raises(error):
            await self.once()

    def written(self) -> dict[str, Any]:
        """The status that was written last."""
        status: dict[str, Any] = next(a for a in reversed(self.world.server.asked) if a.path == STATUS).body["status"]
        return status

    def writes(self) -> int:
        return self.world.server.paths("PATCH").count(STATUS)
