"""A job that cannot be read is told so, and nothing else of its status changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.runtime.objects import finetune_job

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.cluster.unreadable import Unreadable, unreadable
from finetune_operator.plan.model.plan import EventType

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WHY = (
    "this version of the operator cannot read the job: spec.gpus: Input should be a valid integer, unable to parse "
    "string as an integer. Install the operator's own CRDs"
)


def read(status: dict[str, Any]) -> Unreadable:
    body = finetune_job(**status)
    body["metadata"]["generation"] = 4
    body["spec"]["gpus"] = "many"
    raw = json.dumps(body).encode()
    with pytest.raises(ValidationError) as raised:
        FineTuneJob.model_validate_json(raw)
    return unreadable(raw, raised.value, NOW)


def condition(kind: str, status: str, since: str = "2026-03-01T12:00:00Z") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": "InvalidSpec",
        "message": WHY,
        "lastTransitionTime": since,
        "observedGeneration": 4,
    }


def test_a_job_without_a_status_is_pending_and_stalled() -> None:
    found = read({})
    assert found.metadata.name == "bot"
    assert (found.event.type, found.event.reason, found.event.message) == (EventType.WARNING, "InvalidSpec", WHY)
    assert found.changes == {
        "phase": "Pending",
        "reason": "InvalidSpec",
        "message": WHY,
        "observedGeneration": 4,
        "conditions": [condition("Ready", "False"), condition("Reconciling", "False"), condition("Stalled", "True")],
    }


def test_its_phase_its_milestones_and_the_time_of_what_stays_as_it_was_are_kept() -> None:
    earlier, milestone = "2026-02-01T00:00:00Z", {"type": "Prepared", "status": "True"}
    before = [
        {"type": "Ready", "status": "True", "lastTransitionTime": earlier},
        {"type": "Reconciling", "status": "False", "lastTransitionTime": earlier},
        {"type": "Stalled", "status": "True"},
        milestone,
    ]
    changes = read({"phase": "Training", "conditions": before}).changes
    assert changes is not None
    assert changes["phase"] == "Training"
    told = [
        condition("Ready", "False"),
        condition("Reconciling", "False", earlier),
        condition("Stalled", "True"),
    ]
    assert changes["conditions"] == [*(one | {"message": changes["message"]} for one in told), milestone]


def test_a_job_that_is_too_large_to_be_kept_says_how_large_it_may_be() -> None:
    body = finetune_job() | {"spec": {"tooLarge": 400 * 1024}}
    with pytest.raises(ValidationError) as raised:
        FineTuneJob.model_validate(body)
    found = unreadable(json.dumps(body).encode(), raised.value, NOW)
    assert found.event.message == "the job takes 400 KiB, and no more than 320 are read: shorten its spec"


def test_what_is_told_already_is_not_written_again_until_the_spec_changes() -> None:
    told = read({}).changes
    assert told is not None
    assert read(told).changes is None
    assert read(told | {"observedGeneration": 3}).changes is not None


def test_many_problems_are_cut_and_the_advice_stays() -> None:
    body = finetune_job()
    body["spec"]["datasets"] = [{"uri": f"nowhere-{number}"} for number in range(100)]
    raw = json.dumps(body).encode()
    with pytest.raises(ValidationError) as raised:
        FineTuneJob.model_validate_json(raw)
    found = unreadable(raw, raised.value, NOW)
    assert len(found.event.message) <= 1024
    assert found.event.message.endswith(". Install the operator's own CRDs")
