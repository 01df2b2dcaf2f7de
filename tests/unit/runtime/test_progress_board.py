from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_trainer.contract import Progress, Stage

BOT = JobKey("team", "bot")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def news() -> list[JobKey]:
    return []


@pytest.fixture
def board(news: list[JobKey]) -> ProgressBoard:
    return ProgressBoard(news.append)


def said(step: int, updated_at: datetime) -> Progress:
    return Progress(stage=Stage.TRAIN, step=step, updated_at=updated_at)


def shown(board: ProgressBoard) -> datetime:
    newest = board.newest(BOT)
    assert newest is not None
    assert newest.received == newest.progress.updated_at
    return newest.progress.updated_at


def test_a_report_is_news_unless_it_is_only_a_sign_of_life(board: ProgressBoard, news: list[JobKey]) -> None:
    board.report(BOT, "p", said(1, NOON), NOON)
    board.report(BOT, "p", said(1, NOON + 15 * SECOND), NOON + 16 * SECOND)
    assert news == [BOT]
    assert shown(board) == NOON + 16 * SECOND
    board.report(BOT, "p", said(2, NOON + 30 * SECOND), NOON + 31 * SECOND)
    board.report(BOT, "q", said(2, NOON + 30 * SECOND), NOON + 46 * SECOND)
    assert news == [BOT, BOT, BOT]


@pytest.mark.parametrize("pods_clock", [timedelta(days=-400), timedelta(days=400), timedelta(days=2_900_000)])
def test_a_report_is_as_old_as_its_arrival_whatever_the_pods_clock_says(
    board: ProgressBoard, pods_clock: timedelta
) -> None:
    board.report(BOT, "p", said(1, NOON + pods_clock), NOON)
    assert shown(board) == NOON
    board.report(BOT, "p", said(1, NOON + pods_clock + SECOND), NOON + 15 * SECOND)
    assert shown(board) == NOON + 15 * SECOND


def test_the_same_report_again_is_no_sign_of_life(board: ProgressBoard, news: list[JobKey]) -> None:
    for scrape in range(5):
        board.report(BOT, "p", said(1, NOON), NOON + scrape * 15 * SECOND)
    assert shown(board) == NOON
    assert news == [BOT]


def test_a_report_with_another_step_counts_even_when_the_pods_clock_stands_still(
    board: ProgressBoard, news: list[JobKey]
) -> None:
    board.report(BOT, "p", said(1, NOON), NOON)
    board.report(BOT, "p", said(2, NOON), NOON + 15 * SECOND)
    assert shown(board) == NOON + 15 * SECOND
    assert news == [BOT, BOT]


def test_a_time_without_a_zone_is_only_compared(board: ProgressBoard) -> None:
    board.report(BOT, "p", said(1, NOON), NOON)
    board.report(BOT, "p", said(1, NOON.replace(tzinfo=None)), NOON + SECOND)
    assert shown(board) == NOON + SECOND


def test_a_job_that_is_forgotten_has_no_report(board: ProgressBoard) -> None:
    board.report(BOT, "p", said(1, NOON), NOON)
    board.forget(BOT)
    assert board.newest(BOT) is None
