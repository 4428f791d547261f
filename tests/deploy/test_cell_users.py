"""Users of a cell: hashed passwords, roles, and guessing that gets nowhere."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lehrling.datasets.errors import InputError
from lehrling.deploy import cell_users
from lehrling.deploy.cell_users import TRIES_MAX, TRIES_WINDOW_S, Users, add_user, hash_password, matches


def test_a_user_logs_in_with_the_password_that_was_made(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    password = add_user(path, "plc1", "operator")
    add_user(path, "hmi", "observer", "a long password")
    users = Users.read(path)
    assert [user.name for user in users.known] == ["plc1", "hmi"]
    found = users.check("plc1", password)
    assert found is not None
    assert found.role == "operator"
    assert users.check("hmi", "a long password") == users.known[1]
    assert users.check("plc1", "a long password") is None
    assert users.check("nobody", password) is None
    assert password not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_password_has_another_hash_each_time() -> None:
    first, second = hash_password("a long password"), hash_password("a long password")
    assert first != second
    assert matches("a long password", first)
    assert not matches("a long Password", first)


def test_only_the_first_login_of_a_user_costs_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = add_user(tmp_path / "u", "plc", "operator")
    users = Users.read(tmp_path / "u")
    assert users.check("plc", password)
    monkeypatch.setattr(cell_users, "matches", lambda *_: pytest.fail("hashed again"))
    assert users.check("plc", password)


def test_guessing_is_limited_and_the_known_client_still_logs_in(tmp_path: Path) -> None:
    password = add_user(tmp_path / "u", "plc", "operator")
    now = [100.0]
    users = Users(Users.read(tmp_path / "u").known, clock=lambda: now[0])
    assert users.check("plc", password)
    tried = []
    original = cell_users.matches
    for guess in range(TRIES_MAX + 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cell_users, "matches", lambda *a: tried.append(a) or original(*a))  # type: ignore[func-returns-value]
            assert users.check("plc", f"guess {guess}") is None
    assert len(tried) == TRIES_MAX
    assert users.check("plc", password)
    now[0] += TRIES_WINDOW_S + 1
    assert users.check("plc", "x" * 5000) is None


@pytest.mark.parametrize(
    ("name", "role", "password", "problem"),
    [
        ("plc", "operator", None, "knows a user 'plc' already"),
        ("a b", "operator", None, "name"),
        ("new", "admin", None, "role"),
        ("new", "operator", "short", "Expected a password of 10 to 200 characters, got 5."),
    ],
)
def test_a_wrong_user_is_refused(tmp_path: Path, name: str, role: str, password: str | None, problem: str) -> None:
    add_user(tmp_path / "u", "plc", "operator")
    with pytest.raises(InputError, match=problem):
        add_user(tmp_path / "u", name, role, password)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lehrling cell-user NAME"):
        Users.read(tmp_path / "none")
