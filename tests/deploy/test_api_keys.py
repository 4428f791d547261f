"""API keys: hashes in a file, scopes, and an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lehrling.datasets.errors import InputError
from lehrling.deploy.api_keys import Key, Keys, Refusal, new_key

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_key_that_was_made_is_known_and_a_changed_one_is_not() -> None:
    key, digest = new_key()
    keys = Keys((Key(name="robot", sha256=digest),))
    found = keys.check([f"Api-Key {key}"], "infer", NOW)
    assert isinstance(found, Key)
    assert found.name == "robot"
    assert keys.check([f"Bearer {key}"], "infer", NOW) == found
    refused = keys.check([f"Api-Key {key[:-1]}!"], "infer", NOW)
    assert refused == Refusal(401, "The API key is not known.")
    assert len(key) >= 43


@pytest.mark.parametrize("headers", [[], ["Api-Key"], ["Basic x"], ["Api-Key a", "Api-Key b"]])
def test_a_request_without_one_key_is_refused(headers: list[str]) -> None:
    refused = Keys((Key(name="robot", sha256="0" * 64),)).check(headers, "infer", NOW)
    assert isinstance(refused, Refusal)
    assert refused.status == 401


def test_a_key_ends_and_may_only_what_it_may() -> None:
    key, digest = new_key()
    keys = Keys((Key(name="robot", sha256=digest, expires=NOW),))
    assert isinstance(keys.check([f"Api-Key {key}"], "infer", NOW - timedelta(seconds=1)), Key)
    ended = keys.check([f"Api-Key {key}"], "infer", NOW)
    assert isinstance(ended, Refusal)
    assert "ended on 2030-01-01" in ended.text
    other = keys.check([f"Api-Key {key}"], "metrics", NOW - timedelta(seconds=1))
    assert other == Refusal(403, "The API key 'robot' may not metrics.")


def test_without_keys_everybody_may() -> None:
    assert Keys().check([], "infer") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys: []", "keys"),
        ("keys: [{name: a, sha256: short}]", "sha256"),
        ("keys: [{name: 'a b', sha256: %s}]" % ("a" * 64), "name"),
        ("keys: [{name: a, sha256: %s, scopes: [all]}]" % ("a" * 64), "scopes"),
        ("keys: [{name: a, sha256: %s, expires: 2030-01-01T00:00:00}]" % ("a" * 64), "expires"),
        ("keys: [{name: a, key: secret}]", "key"),
        ("[]", "list"),
    ],
)
def test_a_wrong_key_file_is_refused_by_its_key(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(InputError, match=problem) as refused:
        Keys.read(tmp_path / "keys.yaml")
    assert "secret" not in str(refused.value)


def test_a_key_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file of API keys"):
        Keys.read(tmp_path / "keys.yaml")
