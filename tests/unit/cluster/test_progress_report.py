from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_operator.cluster.progress_report import LARGEST, ReportError, parse_report

SAID: dict[str, Any] = {"stage": "train", "updatedAt": "2026-01-01T00:00:00Z", "step": 7, "message": "training"}
CHECKPOINT = {"step": 3, "uri": "pvc://ws/checkpoint-3", "verified": True, "bytes": 10, "loss": 0.5}


def said(**changes: Any) -> bytes:
    return json.dumps(SAID | changes).encode()


def test_a_trainers_report_is_taken_as_it_is() -> None:
    report = parse_report(said(loss=1.5, etaSeconds=60.0, totalSteps=9, checkpoints=[CHECKPOINT]))
    assert (report.step, report.total_steps, report.loss, report.eta_seconds) == (7, 9, 1.5, 60.0)
    assert report.message == "training"
    assert (report.checkpoints[0].uri, report.checkpoints[0].loss) == ("pvc://ws/checkpoint-3", 0.5)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"{" * 60_000, b"[" * 60_000, b'{"a":' * 10_000,
        b'{"stage": "train"}', said(stage="mine"), said(step="seven"), said(step=-1), said(totalSteps=10**30),
        said(step=10**4000), said(worldSize=-1), said(peakMemoryBytes=2**64), said(updatedAt="soon"),
        said(updatedAt=1e300), said(message=["x"]), said(checkpoints=[{**CHECKPOINT, "step": -1}]),
        said(checkpoints=[{**CHECKPOINT, "bytes": 2**70}]), said(checkpoints=[{**CHECKPOINT, "uri": "a\nb"}]),
        said(checkpoints=[{**CHECKPOINT, "uri": "x" * 3000}]), said(message="\ud800").replace(b"ud800", b"udfff"),
    ],
)  # fmt: skip
def test_what_no_trainer_sends_is_refused(data: bytes) -> None:
    with pytest.raises(ReportError):
        parse_report(data)


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e300", "-1e31"])
def test_a_figure_that_cannot_be_shown_is_left_out(figure: str) -> None:
    text = said(loss=0.5, checkpoints=[CHECKPOINT]).decode().replace("0.5", figure)
    report = parse_report(text.encode())
    assert report.loss is None
    assert report.checkpoints[0].loss is None
    assert report.step == 7


@pytest.mark.parametrize("eta", [0.0, 0.5, 10 * 365 * 86400.0])
def test_a_time_left_may_be_anything_from_nothing_to_ten_years(eta: float) -> None:
    assert parse_report(said(etaSeconds=eta)).eta_seconds == eta


@pytest.mark.parametrize("eta", [-1.0, 1e20])
def test_a_time_left_that_cannot_be_is_left_out(eta: float) -> None:
    assert parse_report(said(etaSeconds=eta)).eta_seconds is None


@pytest.mark.parametrize("figure", [1e30, -1e30])
def test_a_figure_may_be_as_large_as_is_worth_showing(figure: float) -> None:
    assert parse_report(said(loss=figure)).loss == figure


def test_a_count_may_be_as_large_as_every_reader_of_json_keeps() -> None:
    assert parse_report(said(step=2**53)).step == 2**53
    with pytest.raises(ReportError):
        parse_report(said(step=2**53 + 1))


def test_a_message_is_one_printable_line_of_bounded_length() -> None:
    report = parse_report(said(message="a\x1b[31m\nb\x00c\u202e" + "x" * 10_000))
    assert report.message.startswith("a [31m b c ")
    assert report.message.isprintable()
    assert len(report.message) == 512


def test_only_the_newest_checkpoints_are_kept() -> None:
    many = [{**CHECKPOINT, "step": step} for step in range(400)]
    assert [one.step for one in parse_report(said(checkpoints=many)).checkpoints] == list(range(384, 400))


@given(st.binary(max_size=LARGEST))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(ReportError):
        parse_report(data)


_keys = st.sampled_from(["step", "uri", "loss"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(max_codepoint=0x2100), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)
_fields = st.sampled_from(["step", "totalSteps", "epoch", "etaSeconds", "loss", "message", "updatedAt", "checkpoints"])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_fields, _json, max_size=4))
def test_any_field_may_be_anything_and_is_refused_or_shown(changes: dict[str, Any]) -> None:
    try:
        report = parse_report(said(**changes))
    except ReportError:
        return
    assert len(report.to_json()) < LARGEST
