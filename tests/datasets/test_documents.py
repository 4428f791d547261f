"""JSON and YAML from anywhere are read within bounds, and what is none is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from lehrling.datasets import documents
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.documents import explain, parse_json, parse_yaml, read_json, read_yaml
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import DamageError, DocumentError, InputError
from lehrling.datasets.journal_read import read_meta
from lehrling.datasets.sealer import read_attributes

LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 30)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_read_as_it_was_written_and_yaml_reads_json(value: Any) -> None:
    assert parse_json(json.dumps(value).encode(), "text") == value
    assert parse_yaml(json.dumps(value), "text") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "here is not JSON: Expecting property name"),
        (b"\xff\xfe", "here is not JSON: 'utf-8' codec"),
        ("[" * 200_000, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ("1" * 5000, "here is not JSON: Exceeds the limit"),
        ("", "here is not JSON: Expecting value"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as caught:
        parse_json(text, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "here, line 1, is not YAML"),
        ("a: 1\n b: 2", "here, line 2, is not YAML"),
        ("!!python/object/apply:os.abort []", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested deeper than 64 levels"),
        ("&a [*a]", "nested deeper than 64 levels"),
        ("{? [a] : b}", "unhashable key"),
        ("2026-13-41", "month must be in 1..12"),
        ("!!int ''", "here is not YAML: string index out of range"),
        ("!!bool perhaps", "here is not YAML: 'perhaps'"),
        (LAUGHS, "more than 4000000 values"),
        (MERGES, "merge keys .<<. are not taken"),
        (b"\x80", "here is not YAML: 'utf-8' codec"),
    ],
)
def test_what_is_no_yaml_or_grows_beyond_bounds_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason) as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)


def test_sixty_four_levels_and_shared_values_are_read() -> None:
    assert parse_json("[" * 64 + "]" * 64, "here") is not None
    assert parse_yaml("a: &x [1, 2]\nb: *x", "here") == {"a": [1, 2], "b": [1, 2]}


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("[1]")
    assert read_json(path, bytes_max=3) == read_yaml(path, bytes_max=3) == [1]
    for read in (read_json, read_yaml):
        with pytest.raises(DocumentError, match="larger than 2 bytes; that is no recipe"):
            read(path, "recipe", bytes_max=2)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner | None = None
    more: tuple[Inner, ...] = ()
    size: int


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"size": "x"}, "f: size: Input should be a valid integer, unable to parse string as an integer, got 'x'."),
        ({}, "f: size: Field required."),
        ({"size": 1, "sise": 2}, "f: 'sise' is not a key of a thing; expected inner, more, size."),
        ({"size": 1, "inner": {"deep": 1}}, "f: 'inner.deep' is not a key of a thing; expected depth."),
        ({"size": 1, "more": [{"deep": 1}]}, "f: 'more.0.deep' is not a key of a thing; expected depth."),
        (3, "f: the document: Input should be a valid dictionary or instance of Outer, got 3."),
    ],
)
def test_a_refusal_names_the_key_what_came_and_the_keys_there_are(data: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    assert explain(caught.value, "f", Outer, "a thing") == sentence


def test_no_loader_of_a_dataset_lets_a_nested_document_through(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text("[" * 5000)
    with pytest.raises(InputError, match=r"robot.yaml is not YAML"):
        load_embodiment(tmp_path / "robot.yaml")
    (tmp_path / "zarr.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="no Lehrling dataset"):
        Dataset.open(tmp_path)


def test_the_bounds_hold_more_than_any_document_of_ours() -> None:
    assert documents.VALUES_MAX >= 4 * 1_000_000
    assert documents.DEPTH_MAX >= 64


@pytest.mark.parametrize("read", [read_attributes, read_meta])
def test_nested_metadata_of_an_episode_or_a_journal_is_damage(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for name in ("zarr.json", "meta.json"):
        (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(DamageError, match=str(tmp_path)):
        read(tmp_path)
