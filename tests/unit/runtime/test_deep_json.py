from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.runtime.deep_json import DEEPEST, TOO_DEEP, from_json


def nested(depth: int) -> str:
    return '{"a":' * depth + '"\\"]}x"' + "}" * depth


@pytest.mark.parametrize("depth", [250, 1_500, 9_000])
def test_what_is_nested_to_break_the_reader_is_cut_off_and_what_stands_beside_it_is_read(depth: int) -> None:
    found = from_json(f'{{"bad": {nested(depth)}, "list": [[1, 2], {{"b": "]"}}], "good": "x"}}'.encode())
    assert (found["list"], found["good"]) == ([[1, 2], {"b": "]"}], "x")
    inner, levels = found["bad"], 1
    while isinstance(inner, dict):
        inner, levels = inner["a"], levels + 1
    assert (inner, levels) == (TOO_DEEP, DEEPEST)


def test_lists_are_cut_off_like_objects() -> None:
    found = from_json("[" * 5_000 + "]" * 5_000)
    assert TOO_DEEP in json.dumps(found)


@pytest.mark.parametrize("text", ["", "{", '{"a": }', "nonsense", "[" * 5_000])
def test_what_is_no_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_all_other_json_is_read_as_it_is(value: object) -> None:
    assert from_json(json.dumps(value)) == value
