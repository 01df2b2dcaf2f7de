"""How the benchmarks count requests."""

import json
from pathlib import Path
from typing import Any

from benchmarks.control_plane import ControlPlane, Request, audited


def event(**changes: Any) -> dict[str, Any]:
    return {
        "verb": "patch",
        "user": {"username": "finetune-operator"},
        "requestURI": "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/bot/status?fieldManager=x",
        "objectRef": {"resource": "finetunejobs", "subresource": "status", "namespace": "team", "name": "bot"},
        "requestReceivedTimestamp": "2026-01-01T00:00:01.500000Z",
        **changes,
    }


def test_a_request_is_told_by_user_verb_and_resource_with_its_subresource() -> None:
    entry = audited(event())
    assert entry.request == Request("finetune-operator", "patch", "finetunejobs/status")
    assert (entry.namespace, entry.name) == ("team", "bot")
    assert entry.received == 1767225601.5


def test_a_request_for_no_object_is_told_by_its_path() -> None:
    assert audited(event(objectRef=None, requestURI="/readyz?verbose")).request.resource == "/readyz"


def test_only_requests_after_the_mark_are_counted_and_no_half_written_line(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, ("finetune-operator",))
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(event()) + "\n")
    mark = plane.requests_so_far()
    with log.open("a") as more:
        more.write(json.dumps(event(verb="create")) + "\n" + json.dumps(event(verb="create")) + "\n")
        more.write(json.dumps(event(verb="create"))[:50])
    assert plane.requests_since(mark) == {Request("finetune-operator", "create", "finetunejobs/status"): 2}
