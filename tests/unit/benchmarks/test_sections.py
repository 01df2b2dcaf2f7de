"""What can be chosen of the operator's benchmark."""

from benchmarks.operator.__main__ import parser, sections


def test_every_section_that_can_be_named_runs_and_all_run_when_none_is() -> None:
    everything = parser().parse_args([])
    assert set(everything.only) == set(sections(everything))


def test_a_run_can_be_one_section() -> None:
    assert parser().parse_args(["--only", "fleet", "--running", "5"]).only == ["fleet"]
