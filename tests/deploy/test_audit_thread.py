"""The thread that writes the audit: in order, and a failure is not forgotten."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from watching import until

from lehrling.datasets.errors import StorageError
from lehrling.deploy import audit, audit_thread
from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_thread import AuditThread


def test_records_are_written_in_order_and_then_it_is_settled() -> None:
    go, written = threading.Event(), list[tuple[str, Mapping[str, Any]]]()

    def write(kind: str, facts: Mapping[str, Any]) -> None:
        go.wait(20)
        written.append((kind, facts))

    thread = AuditThread(write)
    for number in range(5):
        thread("start", {"cycle": number})
    assert not thread.settled()
    go.set()
    until(thread.settled)
    thread.close()
    assert written == [("start", {"cycle": number}) for number in range(5)]


def test_after_a_failure_nothing_more_is_taken_and_it_never_settles() -> None:
    def write(_kind: str, _facts: Mapping[str, Any]) -> None:
        raise StorageError("The audit cannot be written: No space left on device.")

    thread = AuditThread(write)
    thread("start", {})
    until(lambda: bool(thread.problem))
    with pytest.raises(StorageError, match="No space left"):
        thread.settled()
    with pytest.raises(StorageError, match="No space left"):
        thread("end", {})
    thread.close()


def test_a_disk_that_is_too_far_behind_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_thread, "WAITING_MAX", 2)
    go = threading.Event()
    thread = AuditThread(lambda _kind, _facts: go.wait(20))
    thread("end", {})
    until(thread._waiting.empty)
    thread("end", {})
    thread("end", {})
    with pytest.raises(StorageError, match="2 records behind"):
        thread("end", {})
    go.set()
    thread.close()


def test_whatever_fails_in_the_writer_is_a_failure_too() -> None:
    def write(_kind: str, _facts: Mapping[str, Any]) -> None:
        raise ValueError("no name")

    thread = AuditThread(write)
    thread("bad", {})
    until(lambda: bool(thread.problem))
    with pytest.raises(StorageError, match=r"cannot be written \(ValueError: no name\)"):
        thread("end", {})
    with pytest.raises(StorageError):
        thread.settled()
    thread.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_disk_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(audit_thread, "WAITING_MAX", 1)
    monkeypatch.setattr(audit_thread, "CLOSE_S", 0.2)
    monkeypatch.setattr(audit, "CLOSE_S", 0.2)
    go = threading.Event()
    log = AuditLog(tmp_path / "audit.jsonl")
    thread = AuditThread(log.write)
    monkeypatch.setattr("os.fdatasync", lambda _file: go.wait(60))
    thread("start", {})
    until(thread._waiting.empty)
    if full:
        thread("end", {})
    try:
        thread.close()
        assert "has not answered for 0.2 s" in thread.problem
        with pytest.raises(StorageError, match="does not answer"):
            log.close()
    finally:
        go.set()
    until(lambda: thread._open == 0)
    log.close()
