from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import example, given

from finetune_operator.plan.model import names
from finetune_operator.plan.model.text import cut, duration, number, percent, sentence
from finetune_trainer.contract import Stage

JOB_NAMES = st.from_regex(re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII), fullmatch=True)


@given(JOB_NAMES, st.sampled_from(Stage))
@example("x" * 63, Stage.PREPARE)
def test_names_of_children_and_their_pods_are_dns_labels(job: str, stage: Stage) -> None:
    for name in (names.stage_name(job, stage), names.resolved_name(job), names.workspace_claim(job)):
        pod = f"{name}-99999"
        assert len(pod) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", pod)


@given(st.from_regex(re.compile(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", re.ASCII), fullmatch=True))
@example("a." * 100 + "b")
def test_names_of_volumes_are_dns_labels(claim: str) -> None:
    name = names.volume_name("claim", claim)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_claims_whose_names_differ_by_a_dot_get_volumes_of_their_own() -> None:
    assert names.volume_name("claim", "a.b") != names.volume_name("claim", "a-b")


def test_long_names_with_the_same_beginning_stay_apart() -> None:
    assert names.stage_name("x" * 62 + "a", Stage.TRAIN) != names.stage_name("x" * 62 + "b", Stage.TRAIN)


def test_times_are_told_in_two_units() -> None:
    told = [duration(seconds) for seconds in (0, 45, 59.6, 190, 7500, 100_000)]
    assert told == ["0s", "45s", "1m00s", "3m10s", "2h05m", "1d03h"]


def test_numbers_are_short() -> None:
    told = [number(value) for value in (1.23456, 0.00002, 12345.678, 0.0, 999.94, None)]
    assert told == ["1.235", "2e-05", "12346", "0", "999.9", None]


def test_nothing_is_all_done_before_it_is() -> None:
    assert [percent(part, 1000) for part in (0, 455, 999, 1000)] == ["0%", "45%", "99%", "100%"]
    assert percent(1001, 1000) == "100%", "nor more than that"


def test_sentences_are_joined_by_one_full_stop() -> None:
    assert sentence("It failed.", None, "", "Try again") == "It failed. Try again"


@given(st.text(alphabet="aé€😀"), st.integers(8, 64))
def test_text_is_cut_by_bytes(text: str, longest: int) -> None:
    assert len(cut(text, longest).encode()) <= longest
