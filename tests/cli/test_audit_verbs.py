"""`lehrling audit`: what an auditor sees."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import Command

from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_record import Kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write an audit of a stop and its reset."""
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, facts={"model": "ab" * 32}) as log:
        log.write(Kind.STOP, {"cause": "workspace", "axis": 2})
        log.write(Kind.RESET, {"operator": "Kim \x1b[31m Park"})
    return path


@pytest.fixture
def head(path: Path) -> str:
    """Return the hash of its last record."""
    return path.read_text().splitlines()[-1].partition('"hash":"')[2][:64]


def test_a_whole_audit_passes_and_says_what_it_cannot_know(lehrling: Command, path: Path, head: str) -> None:
    done = lehrling("audit", "verify", path)
    assert done.code == 0
    assert "whole: 4 records" in done.err
    assert "without --head" in done.err
    assert f"head: {head}" in done.err
    done = lehrling("audit", "verify", path, "--head", head)
    assert done.code == 0
    assert "0 records come after it" in done.err
    assert "without --head" not in done.err


def test_a_changed_record_fails_and_is_named(lehrling: Command, path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"workspace", b"stale imag"[:9]))
    done = lehrling("audit", "verify", path)
    assert done.code == 1
    assert f"changed: {path}:2: line 2 does not fit its hash" in done.err
    assert "not whole: 1 fault in 3 records" in done.err
    done = lehrling("audit", "verify", path, "--json")
    assert done.code == 1
    assert not done.data["whole"]
    assert [(f["fault"], f["line"]) for f in done.data["findings"]] == [("changed", 2)]


def test_a_cut_end_fails_against_the_head_that_was_kept(lehrling: Command, path: Path, head: str) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    done = lehrling("audit", "verify", path)
    assert done.code == 0
    assert "was not closed" in done.err
    done = lehrling("audit", "verify", path, "--head", head)
    assert done.code == 1
    assert "its end was cut off" in done.err


def test_records_are_shown_newest_last(lehrling: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    done = lehrling("audit", "show", path)
    assert done.code == 0
    kinds = ["opened", "stop", "operator reset", "closed"]
    places = [done.out.index(f" {kind} ") for kind in kinds]
    assert places == sorted(places)
    assert "cause: workspace" in done.out
    assert f"model: {'ab' * 6}" in done.out
    assert "\x1b[31m" not in done.out
    assert [r["kind"] for r in lehrling("audit", "show", path, "--json").data] == kinds
    assert [r["sequence"] for r in lehrling("audit", "show", path, "--last", 2, "--json").data] == [2, 3]
    chosen = lehrling("audit", "show", path, "--kind", "stop", "--json").data
    assert [r["facts"] for r in chosen] == [{"axis": 2, "cause": "workspace"}]


def test_what_is_no_audit_is_refused(lehrling: Command, tmp_path: Path, path: Path) -> None:
    assert lehrling("audit", "verify", tmp_path / "absent").refused("no such file")
    assert lehrling("audit", "show", tmp_path / "absent").refused("no such file")
    assert lehrling("audit", "verify", path, "--head", "12").refused("64 hexadecimal digits")
    assert lehrling("audit", "verify", tmp_path).code == 2
