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
from finetune_operator.runtime.store import LARGEST_JOB, Ref, Store, record_of

BOT = JobKey("team", "bot")
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.fixture
def store() -> Store:
    return Store()


def put(store: Store, kind: Kind, body: Body) -> tuple[JobKey, ...]:
    return store.put(record_of(kind, body))


def raw(store: Store, kind: Kind, name: str) -> bytes:
    record = store.get(kind, "team", name)
    assert record is not None
    return record.raw


def names(found: list[Body]) -> list[str]:
    return [body["metadata"]["name"] for body in found]


def test_a_job_concerns_itself(store: Store) -> None:
    assert put(store, FINETUNE_JOBS, finetune_job()) == (BOT,)


def test_what_is_known_or_older_is_no_news(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job(version=5))
    assert put(store, FINETUNE_JOBS, finetune_job(version=5)) == ()
    assert put(store, FINETUNE_JOBS, finetune_job(version=4, phase="Training")) == ()
    assert store.phases() == {"Pending": 1}


def test_bookkeeping_of_other_programs_is_not_kept(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    metadata = pydantic_core.from_json(raw(store, FINETUNE_JOBS, "bot"))["metadata"]
    assert "managedFields" not in metadata
    assert metadata["annotations"] == {"team": "a"}


# Whose children they are


def test_a_pod_concerns_the_job_that_owns_its_job_whatever_its_labels_say(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, FINETUNE_JOBS, finetune_job("other"))
    assert put(store, BATCH_JOBS, child("Job", "bot-train")) == (BOT,)
    assert put(store, PODS, child("Pod", "bot-train-0", job="other", owner="uid-bot-train")) == (BOT,)
    assert names(store.children(BOT, PODS)) == ["bot-train-0"]
    assert names(store.children(BOT, BATCH_JOBS)) == ["bot-train"]


def test_a_pod_that_comes_before_its_owners_is_found_when_they_are_there(store: Store) -> None:
    assert put(store, PODS, child("Pod", "p")) == ()
    assert put(store, BATCH_JOBS, child("Job", "bot-train")) == ()
    assert put(store, FINETUNE_JOBS, finetune_job()) == (BOT,)
    assert names(store.children(BOT, PODS)) == ["p"]


def test_what_carries_the_label_and_belongs_to_nobody_of_ours_concerns_nobody(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    assert put(store, BATCH_JOBS, child("Job", "bot-train", owner="uid-of-its-predecessor")) == ()
    ownerless = child("Job", "a-backup")
    ownerless["metadata"]["ownerReferences"] = []
    assert put(store, BATCH_JOBS, ownerless) == ()
    assert put(store, PODS, child("Pod", "directly-below", owner="uid-bot")) == ()
    assert store.children(BOT, PODS) == store.children(BOT, BATCH_JOBS) == []


def test_an_owner_that_is_no_controller_owns_nothing(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    shared = child("Job", "bot-train")
    shared["metadata"]["ownerReferences"][0]["controller"] = False
    assert put(store, BATCH_JOBS, shared) == ()


def test_of_strangers_only_their_being_there_is_kept(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, BATCH_JOBS, child("Job", "bot-train"))
    put(store, PODS, child("Pod", "ours"))
    put(store, PODS, child("Pod", "theirs", owner="uid-other"))
    store.shed_strangers()
    assert raw(store, PODS, "ours")
    assert raw(store, PODS, "theirs") == b""
    put(store, PODS, child("Pod", "theirs", version=2, owner="uid-other"))
    assert raw(store, PODS, "theirs") == b"", "a change of it brings nothing back"
    assert store.count(PODS) == 2


def test_jobs_with_children_are_those_that_run(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, FINETUNE_JOBS, finetune_job("waits"))
    put(store, FINETUNE_JOBS, finetune_job("over", phase="Failed"))
    put(store, BATCH_JOBS, child("Job", "bot-train"))
    put(store, BATCH_JOBS, child("Job", "over-train", job="over"))
    put(store, BATCH_JOBS, child("Job", "nobodys", owner="uid-x"))
    assert store.jobs_with_children() == [BOT]


# Jobs that have ended


def test_of_a_job_that_has_ended_a_projection_is_kept_and_of_its_children_nothing(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, BATCH_JOBS, child("Job", "bot-train", status=COMPLETE))
    put(store, PODS, child("Pod", "before"))
    ended = finetune_job(version=2, phase="Failed", observedGeneration=1, completionTime="2026-01-01T00:00:00Z")
    ended["spec"]["runPolicy"] = {"maxRestarts": 3}
    put(store, FINETUNE_JOBS, ended)
    put(store, PODS, child("Pod", "after"))
    assert pydantic_core.from_json(raw(store, FINETUNE_JOBS, "bot")) == {
        "metadata": {"uid": "uid-bot", "generation": 1},
        "spec": {"runPolicy": {"maxRestarts": 3}},
        "status": {"phase": "Failed", "observedGeneration": 1, "completionTime": "2026-01-01T00:00:00Z"},
    }
    assert raw(store, PODS, "before") == raw(store, PODS, "after") == raw(store, BATCH_JOBS, "bot-train") == b""
    assert list(store.open_jobs()) == []
    assert store.children(BOT, PODS) == []


def test_an_ended_job_is_quiet_until_its_spec_changes(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job(phase="Succeeded", observedGeneration=1))
    assert store.is_quiet(BOT)
    edited = finetune_job(version=2, phase="Succeeded", observedGeneration=1)
    edited["metadata"]["generation"] = 2
    assert put(store, FINETUNE_JOBS, edited) == (BOT,)
    assert not store.is_quiet(BOT)
    assert list(store.open_jobs()) == [BOT]


def test_an_ended_job_whose_status_names_no_generation_is_quiet(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job(phase="Succeeded"))
    assert store.is_quiet(BOT)


@pytest.mark.parametrize("end", [COMPLETE, {"conditions": [{"type": "Failed", "status": "True"}]}])
def test_an_ended_job_is_not_quiet_while_a_job_of_its_own_may_run_pods(store: Store, end: Body) -> None:
    put(store, FINETUNE_JOBS, finetune_job(phase="Failed"))
    assert put(store, BATCH_JOBS, child("Job", "bot-train")) == (BOT,)
    assert list(store.open_jobs()) == [BOT]
    assert put(store, PODS, child("Pod", "p")) == ()
    assert put(store, BATCH_JOBS, child("Job", "bot-train", version=2, status=end)) == ()
    assert store.is_quiet(BOT)


def test_a_job_that_is_being_deleted_is_not_waited_for(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job(phase="Failed"))
    going = child("Job", "bot-train")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    put(store, BATCH_JOBS, going)
    assert store.is_quiet(BOT)


def test_children_of_a_job_that_goes_on_are_kept_again_once_they_are_read_again(store: Store) -> None:
    put(store, BATCH_JOBS, child("Job", "bot-train"))
    put(store, FINETUNE_JOBS, finetune_job(phase="Failed"))
    assert put(store, BATCH_JOBS, child("Job", "bot-train")) == ()
    assert store.children(BOT, BATCH_JOBS) == []
    put(store, FINETUNE_JOBS, finetune_job(version=2, phase="Training"))
    assert put(store, BATCH_JOBS, child("Job", "bot-train")) == ()
    assert names(store.children(BOT, BATCH_JOBS)) == ["bot-train"]


def test_a_job_that_is_not_there_is_quiet(store: Store) -> None:
    assert store.is_quiet(BOT)


# Templates


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


# What is gone


@pytest.fixture
def running(store: Store) -> Store:
    put(store, FINETUNE_JOBS, finetune_job())
    put(store, BATCH_JOBS, child("Job", "bot-train"))
    put(store, PODS, child("Pod", "p", version=3))
    return store


def test_a_deleted_object_does_not_come_back_by_a_late_answer(running: Store) -> None:
    assert running.remove(PODS, Ref("team", "p"), "uid-p") == (BOT,)
    assert put(running, PODS, child("Pod", "p", version=4)) == ()
    assert running.children(BOT, PODS) == []


def test_what_is_gone_as_of_a_version_comes_back_with_a_newer_one(running: Store) -> None:
    assert running.remove(PODS, Ref("team", "p"), "uid-p", 5) == (BOT,)
    assert put(running, PODS, child("Pod", "p", version=5)) == ()
    assert put(running, PODS, child("Pod", "p", version=6)) == (BOT,)
    assert names(running.children(BOT, PODS)) == ["p"]


def test_a_deletion_of_an_older_version_takes_nothing_away(running: Store) -> None:
    assert running.remove(PODS, Ref("team", "p"), "uid-p", 2) == ()
    assert names(running.children(BOT, PODS)) == ["p"]


def test_a_later_word_on_a_labels_loss_does_not_undo_a_deletion(running: Store) -> None:
    running.remove(PODS, Ref("team", "p"), "uid-p")
    running.remove(PODS, Ref("team", "p"), "uid-p", 5)
    assert put(running, PODS, child("Pod", "p", version=6)) == ()


def test_deleting_an_earlier_object_of_the_same_name_changes_nothing(store: Store) -> None:
    put(store, FINETUNE_JOBS, finetune_job())
    assert store.remove(FINETUNE_JOBS, Ref("team", "bot"), "uid-of-its-predecessor") == ()
    assert store.job(BOT) is not None


def test_children_of_a_job_that_was_deleted_are_not_those_of_the_next_one(running: Store) -> None:
    running.remove(FINETUNE_JOBS, Ref("team", "bot"), "uid-bot")
    successor = finetune_job(version=9)
    successor["metadata"]["uid"] = "uid-successor"
    put(running, FINETUNE_JOBS, successor)
    assert running.children(BOT, BATCH_JOBS) == running.children(BOT, PODS) == []


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


def test_of_a_job_that_is_too_large_its_size_is_kept_and_not_its_spec() -> None:
    body = finetune_job()
    body["spec"]["podTemplate"] = {"spec": {"filler": "x" * LARGEST_JOB}}
    kept = pydantic_core.from_json(record_of(FINETUNE_JOBS, body).raw)
    assert kept["spec"] == {"tooLarge": pytest.approx(LARGEST_JOB, rel=0.1)}
    assert kept["metadata"]["uid"] == "uid-bot"


def test_large_annotations_go_before_the_spec_does() -> None:
    body = finetune_job()
    body["metadata"]["annotations"] = {"notes": "x" * LARGEST_JOB}
    kept = pydantic_core.from_json(record_of(FINETUNE_JOBS, body).raw)
    assert kept["spec"]["gpus"] == 1
    assert "annotations" not in kept["metadata"]


def test_a_job_is_new_until_it_has_a_status_or_a_job(store: Store) -> None:
    assert not store.is_new(BOT)
    put(store, FINETUNE_JOBS, finetune_job())
    assert store.is_new(BOT)
    put(store, FINETUNE_JOBS, finetune_job(version=2, phase="Pending", observedGeneration=1))
    assert not store.is_new(BOT)
    put(store, FINETUNE_JOBS, finetune_job(version=3))
    put(store, BATCH_JOBS, child("Job", "bot-train"))
    assert not store.is_new(BOT)
