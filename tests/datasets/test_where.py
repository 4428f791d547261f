"""Filter expressions: what they select, what they refuse, and that nothing of them is ever run."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.datasets.manifest import EpisodeRecord, Parent, StreamTiming
from lehrling.datasets.where import FIELDS, WhereError, parse_where

RECORD = EpisodeRecord(
    "kitting-1", "sealed", "kitting", "put the red part in", "arm6", outcome="success", duration_s=4.5,
    lengths={"front": 45}, timing={"front": StreamTiming(45, 10.0, 100.0, 100.0, 0.0, 30.0, -1)},
    tags=("dark", "slow"), parent=Parent("kitting-0", "ab", 0.0, 4.5),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("outcome == 'success' and task == 'kitting' and duration_s > 3", True),
        ("outcome != 'success' or duration_s <= 3", False),
        ("not (duration_s > 3)", False),
        ("3 < duration_s < 5", True),
        ("3 < duration_s < 4", False),
        ("'slow' in tags and 'red' in instruction", True),
        ("'slow' not in tags", False),
        ("robot in ('arm6', 'iiwa')", True),
        ("lengths['front'] > 40 and rates_hz['front'] >= 10", True),
        ("lengths['rear'] > 0", False),
        ("id.startswith('kit') and id.lower().endswith('-1')", True),
        ("seed > 3", False),
        ("seed == None", True),
        ("operator in ('anna', None)", True),
        ("operator.startswith('a')", False),
        ("parent == 'kitting-0'", True),
        ("duration_s > -1", True),
        ("tags", True),
        ("losses", False),
        ("True", True),
    ],
)
def test_a_filter_says_which_episodes_pass(text: str, passes: bool) -> None:
    assert parse_where(text).matches(RECORD) is passes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("outcom == 'success'", "no field 'outcom' to filter by; known are .*duration_s, .*Did you mean outcome"),
        ("colour == 'red'", "known are "),
        ("outcome = 'success'", "Expected a filter such as"),
        ("", "Expected a filter such as"),
        ("duration_s > 'long'", "can be compared .*got 4.5 and 'long'"),
        ("-task == 3", "a number after '-'"),
        ("tags.startswith('a')", "Expected text for startswith"),
        ("id.startswith('a', 'b')", "Expected 1 argument for startswith"),
        ("x" * 5000, "at most 4096 characters"),
        ("(" * 300 + ")" * 300, "Expected a filter"),
        ("a\x00b", "Expected a filter"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(WhereError, match=reason):
        parse_where(text).matches(RECORD)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "id.__class__",
        "id.__class__.__mro__",
        "().__class__",
        "id.format('a')",
        "'a' * 10 ** 9",
        "[x for x in tags]",
        "(lambda: 1)()",
        "f'{id}'",
        "(x := 3)",
        "lengths[id]",
        "id[0]",
        "tags['a']",
        "b'bytes' == id",
        "1j == 2",
        "id is None",
        "{'a': 1}",
        "duration_s if True else 3",
        "...",
        "id.startswith(*tags)",
    ],
)
def test_everything_but_comparisons_is_refused_before_it_is_looked_at(text: str) -> None:
    with pytest.raises(WhereError, match="Expected"):
        parse_where(text)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_pass_fail_or_be_refused(text: str) -> None:
    with contextlib.suppress(WhereError):
        assert parse_where(text).matches(RECORD) in (True, False)


def test_every_field_can_be_asked_for() -> None:
    for name in FIELDS:
        assert parse_where(f"{name} == {name}").matches(RECORD)
