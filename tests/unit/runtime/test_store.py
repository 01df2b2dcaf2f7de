from __future__ import annotations

import pydantic_core
import pytest
from tests.unit.runtime.objects import Body, child, finetune_job, template

from finetune_operator.runtime.kinds import (
    BATCH_JOBS,
    CLUSTER_TEMPLATES,
    FINETUNE_JOBS,
    PODS,
    TEMPLATES,
    JobKey,
    Kind,
)
from finetune_operator.runtime.store import Ref, Store, record_of

BOT = JobKey("team", "bot")


@pytest.fixture
def store() -> Store:
    return Store()


def put(store: Store, kind: Kind, body: Body) -> tuple[JobKey, ...]:
    return store.put(record_of(kind, body))


def test_a_job_concerns_itself(store: Store) -> None:
    assert put(store, FINETUNE_JOBS, finetune_job()) == (BOT,)


def test_what_is_known_or_older_is_no_news(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job(version=5))
    assert put(store, FINETUNE_JOBS, finetune_job(version=5)) == ()
    assert put(store, FINETUNE_JOBS, finetune_job(version=4, phase="Training")) == ()
    assert store.phases() == {"Pending": 1}


def test_bookkeeping_of_other_programs_is_not_kept(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    record = store.job(BOT)
    assert record is not None
    metadata = pydantic_core.from_json(record.raw)["metadata"]
    assert "managedFields" not in metadata
    assert metadata["annotations"] == {"team": "a"}


def test_a_pod_concerns_the_job_on_its_label(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    assert put(store, PODS, child("Pod", "bot-train-0")) == (BOT,)
    assert [pod["metadata"]["name"] for pod in store.children(BOT, PODS)] == ["bot-train-0"]
    assert store.children(BOT, BATCH_JOBS) == []


def test_a_pod_of_a_job_that_is_unknown_or_has_ended_concerns_nobody(store: Store) -> None:
    assert put(store, PODS, child("Pod", "a")) == ()
    put(store, FINETUNE_JOBS, finetune_job(phase="Succeeded"))
    assert put(store, PODS, child("Pod", "b")) == ()


def test_of_a_job_that_has_ended_and_of_its_pods_no_json_is_kept(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, PODS, child("Pod", "before"))
    put(store, FINETUNE_JOBS, finetune_job(version=2, phase="Failed"))
    put(store, PODS, child("Pod", "after"))
    record = store.job(BOT)
    assert record is not None
    assert record.raw == b""
    assert all(store.get(PODS, "team", name).raw == b"" for name in ("before", "after"))  # type: ignore[union-attr]
    assert list(store.open_jobs()) == []
    assert store.children(BOT, PODS) == []


def test_a_template_wakes_the_jobs_that_wait_for_it(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job("waits"))
    put(store, FINETUNE_JOBS, finetune_job("runs", startTime="2026-01-01T00:00:00Z"))
    put(store, FINETUNE_JOBS, finetune_job("other", template="full"))
    assert put(store, CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate")) == (JobKey("team", "waits"),)
    assert put(store, TEMPLATES, template("FineTuneTemplate", namespace="team")) == (JobKey("team", "waits"),)
    assert put(store, TEMPLATES, template("FineTuneTemplate", namespace="elsewhere")) == ()


def test_a_job_that_has_started_no_longer_waits_for_its_template(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, FINETUNE_JOBS, finetune_job(version=2, startTime="2026-01-01T00:00:00Z"))
    assert put(store, CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate")) == ()


def test_a_deleted_object_does_not_come_back_by_a_late_answer(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, PODS, child("Pod", "p", version=3))
    assert store.remove(PODS, Ref("team", "p"), "uid-p") == (BOT,)
    assert put(store, PODS, child("Pod", "p", version=4)) == ()
    assert store.children(BOT, PODS) == []


def test_deleting_an_earlier_object_of_the_same_name_changes_nothing(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    assert store.remove(FINETUNE_JOBS, Ref("team", "bot"), "uid-of-its-predecessor") == ()
    assert store.job(BOT) is not None


def test_phases_are_counted_through_changes_and_deletions(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job("a"))
    put(store, FINETUNE_JOBS, finetune_job("b"))
    put(store, FINETUNE_JOBS, finetune_job("a", version=2, phase="Training"))
    store.remove(FINETUNE_JOBS, Ref("team", "b"), "uid-b")
    assert {phase: count for phase, count in store.phases().items() if count} == {"Training": 1}


def test_a_list_shows_what_is_gone_but_not_what_is_newer_than_it(store: Store) -> None:
    for name, version in (("stays", 5), ("gone", 6), ("newer", 20)):
        put(store, FINETUNE_JOBS, finetune_job(name, version=version))
    missing = store.missing_from(FINETUNE_JOBS, None, {Ref("team", "stays"): "uid-stays"}, 10)
    assert [record.ref.name for record in missing] == ["gone"]


def test_a_list_of_one_namespace_says_nothing_of_others(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    assert store.missing_from(FINETUNE_JOBS, "other", {}, 10) == []
