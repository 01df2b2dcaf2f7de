"""What the Job controller would do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.local.builders import job_manifest

from finetune_operator.local.controller import Complete, FailJob, Start, Stop, verdict
from finetune_operator.local.records import JobRecord, PodRecord
from finetune_operator.plan.model.observed import PodPhase
from finetune_trainer.contract import Stage

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(*pods: PodRecord, count: int = 2, **state: Any) -> JobRecord:
    manifest = job_manifest("pass", pods=count, backoffLimit=state.pop("limit", 6))
    return JobRecord(
        name="pig-train", stage=Stage.TRAIN, uid="u", created=NOW, manifest=manifest, pods=list(pods), **state
    )


def running(index: int, **state: Any) -> PodRecord:
    return PodRecord(name=f"p{index}", index=index, created=NOW, **state)


def ended(index: int, code: int, ago: float = 0.0) -> PodRecord:
    phase = PodPhase.FAILED if code else PodPhase.SUCCEEDED
    return running(index, phase=phase, exit_code=code, finished=NOW - timedelta(seconds=ago))


def test_every_index_without_a_pod_gets_one() -> None:
    assert verdict(job(running(0)), NOW) == Start((1,))


def test_all_indexes_succeeded_is_complete() -> None:
    assert verdict(job(ended(0, 0), ended(1, 0)), NOW) == Complete()


def test_nothing_to_do_while_all_run() -> None:
    assert verdict(job(running(0), running(1)), NOW) is None


def test_a_failed_index_is_made_again_after_the_back_off_which_doubles() -> None:
    assert verdict(job(ended(0, 70, ago=0.5), running(1)), NOW) is None
    assert verdict(job(ended(0, 70, ago=1.0), running(1)), NOW) == Start((0,))
    assert verdict(job(ended(0, 70, ago=9), ended(0, 70, ago=1.5), running(1)), NOW) is None


@pytest.mark.parametrize("state", [{"deleting": True}, {"failure": "DeadlineExceeded: ..."}, {"complete": True}])
def test_a_job_that_is_over_stops_its_pods_once_and_makes_none(state: dict[str, Any]) -> None:
    assert verdict(job(running(0), **state), NOW) == Stop()
    assert verdict(job(running(0, gone_by=NOW), **state), NOW) is None


def test_an_index_whose_pod_is_being_deleted_waits_for_its_end() -> None:
    assert verdict(job(running(0, gone_by=NOW), running(1)), NOW) is None


def test_a_final_exit_code_fails_the_job() -> None:
    assert isinstance(verdict(job(ended(0, 64), running(1)), NOW), FailJob)


def test_disruptions_are_not_counted() -> None:
    lost = running(0, phase=PodPhase.FAILED, disrupted=True, finished=NOW - timedelta(seconds=5))
    assert verdict(job(lost, running(1), limit=0), NOW) == Start((0,))
    assert isinstance(verdict(job(ended(0, 70, ago=5), running(1), limit=0), NOW), FailJob)
