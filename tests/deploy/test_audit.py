"""The audit: whatever is changed in it later is found, and nothing runs unaudited."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_disks import remount, small_disk

from lehrling.datasets.errors import DamageError, InputError, LockedError, StorageError
from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_record import GENESIS, LINE_BYTES_MAX, Head, Kind, audit_files, decode, encode
from lehrling.deploy.audit_verify import AuditReport, read_records, verify

FACTS = {"model": "a" * 64, "contract": "b" * 64}
KILLED = """
import os, signal, sys
from pathlib import Path
from lehrling.deploy.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
log.write("stop", {"cause": "gate"})
log.write("clamp burst", {"clamps": 9})
os.kill(os.getpid(), signal.SIGKILL)
"""


def written(path: Path, records: int = 4) -> str:
    """Write an audit and return its head's hash."""
    with AuditLog(path, facts=FACTS) as log:
        for number in range(records):
            log.write(Kind.STATE, {"from": "holding", "to": "moving", "number": number})
    return log.head.hash


def faults(report: AuditReport) -> list[str]:
    return [finding.fault for finding in report.findings]


def test_records_say_what_happened_when_and_what_held(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    before = datetime.now(UTC)
    with AuditLog(path, facts=FACTS) as log:
        log.write(Kind.STOP, {"cause": "workspace", "axis": 2})
    opened, stop, closed = read_records(path)
    assert [record.kind for record in (opened, stop, closed)] == ["opened", "stop", "closed"]
    assert [record.sequence for record in (opened, stop, closed)] == [0, 1, 2]
    assert opened.facts == {"format": 1, **FACTS}
    assert stop.facts == {"cause": "workspace", "axis": 2}
    assert opened.previous == GENESIS
    assert (stop.previous, closed.previous) == (opened.hash, stop.hash)
    assert before <= datetime.fromisoformat(stop.wall) <= datetime.now(UTC)
    assert opened.mono_ns <= stop.mono_ns <= closed.mono_ns
    assert log.head.hash == closed.hash


def test_a_whole_audit_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = written(path)
    report = verify(path, head=head)
    assert report.whole
    assert (report.records, report.head.sequence, report.after, report.closed) == (6, 5, 0, True)
    assert report.kinds == {"closed": 1, "opened": 1, "state change": 4}
    assert json.loads(json.dumps(report.to_json()))["whole"] is True


def test_reopening_goes_on_with_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = written(path)
    second = written(path)
    report = verify(path, head=head)
    assert report.whole
    assert (report.records, report.after) == (12, 6)
    assert verify(path, head=second).after == 0


def test_facts_that_json_cannot_say_are_recorded_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    odd: dict[str, object] = {
        "nan": float("nan"),
        "array": np.array([1.5, np.inf]),
        "path": Path("/robot"),
        "huge": 1 << 80,
        "count": np.int64(3),
        "lone": "\udcff",
    }
    nested: object = 1
    for _ in range(100):
        nested = [nested]
    with AuditLog(path) as log:
        log.write(Kind.STOP, odd)
        log.write(Kind.STOP, {"nested": nested})
        log.write(Kind.STOP, {"text": '"' * 1_000_000})
    _, first, _, cut, _ = read_records(path)
    assert first.facts == {
        "nan": "nan", "array": [1.5, "inf"], "path": "/robot", "huge": str(1 << 80), "count": 3, "lone": "\udcff",
    }  # fmt: skip
    assert cut.facts["bytes"] == len('{"text":""}') + 2_000_000
    assert max(map(len, path.read_bytes().splitlines())) < LINE_BYTES_MAX
    assert verify(path).whole


def test_a_kind_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit.jsonl") as log:
        for kind in ("", "Stop", 'a"b', "x" * 65, "two\nlines"):
            with pytest.raises(InputError, match="small letters"):
                log.write(kind)
        log.write("recipe 7")
    assert verify(log.path).records == 3


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "audit.jsonl"
    if not path.exists():
        written(path)
        shutil.copy(path, tmp_path / "whole")
    whole = bytearray((tmp_path / "whole").read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != whole[place]))
    whole[place] = value
    path.write_bytes(whole)
    assert not verify(path).whole


def changed(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


@pytest.mark.parametrize("number", range(5))
def test_a_removed_record_is_found(tmp_path: Path, number: int) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    changed(path, lambda lines: lines[:number] + lines[number + 1 :])
    report = verify(path)
    assert faults(report) == ["removed"]
    assert f"record {number} missing before record {number + 1}" in report.findings[0].text


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(order=st.permutations(range(6)))
def test_any_other_order_is_found(tmp_path: Path, order: list[int]) -> None:
    path, kept = tmp_path / "audit.jsonl", tmp_path / "whole"
    if not kept.exists():
        written(path)
        shutil.copy(path, kept)
    lines = kept.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order))
    assert verify(path).whole == (list(order) == list(range(6)))


def test_a_repeated_and_a_moved_record_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    changed(path, lambda lines: [*lines, lines[2]])
    assert faults(verify(path)) == ["inserted"]
    changed(path, lambda lines: [*lines[:2], *lines[3:]])
    assert faults(verify(path)) == ["removed", "moved"]


def test_a_record_that_was_made_up_and_put_in_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    second = decode(lines[1], "line")
    forged = encode(Head(1, second.hash), "operator reset", {"by": "nobody"}, 0)
    changed(path, lambda lines: [*lines[:2], forged, *lines[3:]])
    assert faults(verify(path)) == ["changed"]
    assert verify(path).findings[0].line == 4


def test_a_forged_record_that_follows_nothing_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for previous in ("é" * 64, "0" * 63, "", "F" * 64):
        path.write_bytes(encode(Head(-1, previous), "stop", {}, 0))
        assert faults(verify(path)) == ["changed", "cut"]


def test_a_cut_end_is_found_by_the_head_that_was_kept_and_not_without(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = written(path)
    changed(path, lambda lines: lines[:-2])
    blind = verify(path)
    assert blind.whole
    assert not blind.closed
    report = verify(path, head=head)
    assert faults(report) == ["cut"]
    assert "the head that was kept is not in it" in report.findings[0].text


def test_an_audit_written_anew_is_found_by_the_head_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = written(path)
    path.unlink()
    written(path)
    assert verify(path).whole
    assert faults(verify(path, head=head)) == ["cut"]


def test_a_torn_last_line_is_kept_aside_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    whole = path.read_bytes()
    torn = b'{"facts":{"to":"mov'
    path.write_bytes(whole + torn)
    assert faults(verify(path)) == ["torn"]
    AuditLog(path).close()
    assert path.read_bytes().startswith(whole)
    noted = list(read_records(path))[6]
    assert noted.kind == "torn line kept"
    (kept,) = noted.facts["kept"]
    assert (tmp_path / kept["file"]).read_bytes() == torn
    assert verify(path).whole
    (tmp_path / kept["file"]).write_bytes(b"other")
    assert faults(verify(path)) == ["changed"]
    (tmp_path / kept["file"]).unlink()
    assert faults(verify(path)) == ["removed"]


def test_records_behind_something_that_is_no_line_are_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:3], bytes(LINE_BYTES_MAX + 5), *lines[3:]])
    path.write_bytes(content)
    with pytest.raises(DamageError, match="no chain behind record 2"):
        AuditLog(path)
    assert path.read_bytes() == content


def test_a_full_file_that_was_cut_is_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    (tmp_path / "audit.jsonl.000001").write_bytes(path.read_bytes()[:-9])
    path.write_bytes(b"")
    with pytest.raises(DamageError, match="is not whole, though it was full"):
        AuditLog(path)
    path.unlink()
    with pytest.raises(DamageError, match="no chain behind record 4"):
        AuditLog(path)


def test_a_crash_between_keeping_a_torn_line_and_noting_it_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    (tmp_path / "audit.jsonl.torn-000000006-0").write_bytes(b"first")
    path.write_bytes(path.read_bytes() + b"second")
    AuditLog(path).close()
    noted = list(read_records(path))[6]
    assert [(tmp_path / kept["file"]).read_bytes() for kept in noted.facts["kept"]] == [b"first", b"second"]


def test_a_process_killed_leaves_every_record_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert [record.kind for record in read_records(path)] == ["opened", "stop", "clamp burst"]
    AuditLog(path).close()
    assert verify(path).whole


@pytest.mark.parametrize("line", [0, 2, 5])
def test_an_audit_that_was_changed_is_not_gone_on_with(tmp_path: Path, line: int) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    changed(path, lambda lines: [*lines[:line], lines[line].replace(b"2", b"3", 1), *lines[line + 1 :]])
    content = path.read_bytes()
    with pytest.raises(DamageError, match="keep the file"):
        AuditLog(path)
    assert path.read_bytes() == content


def test_two_writers_cannot_interleave(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path), pytest.raises(LockedError, match="Another process writes the audit"):
        AuditLog(path)
    AuditLog(path).close()


def test_threads_write_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, file_bytes_max=10_000) as log:
        threads = [
            threading.Thread(target=lambda: [log.write(Kind.CLAMPS, {"n": number}) for number in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verify(path)
    assert report.whole
    assert report.kinds["clamp burst"] == 200


def test_the_chain_goes_over_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, facts=FACTS, file_bytes_max=2000) as log:
        for number in range(20):
            log.write(Kind.STATE, {"number": number})
    files = audit_files(path)
    assert [file.name for file in files[:2]] == ["audit.jsonl.000001", "audit.jsonl.000002"]
    assert all(file.stat().st_size <= 2000 for file in files)
    first = decode(files[1].read_bytes().splitlines(keepends=True)[0], "line")
    assert (first.kind, first.facts) == ("continued", {"format": 1, **FACTS})
    report = verify(path, head=log.head.hash)
    assert report.whole
    assert report.kinds["state change"] == 20
    files[1].unlink()
    assert "removed" in faults(verify(path))
    AuditLog(path, file_bytes_max=200).close()
    assert audit_files(path)[0].name == "audit.jsonl.000001"


def test_a_crash_while_files_change_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    path.rename(tmp_path / "audit.jsonl.000001")
    head = written(path)
    assert verify(path, head=head).records == 12
    path.rename(tmp_path / "audit.jsonl.000002")
    path.write_bytes(b'{"torn')
    AuditLog(path).close()
    report = verify(path)
    assert report.whole
    assert report.kinds["torn line kept"] == 1


def write_until_full(path: Path, size: int) -> None:
    """Open, write and close until there is no room."""
    for _ in range(10_000):
        with AuditLog(path, file_bytes_max=200_000) as log:
            log.write(Kind.STOP, {"text": "x" * size})


def test_a_full_disk_is_told_and_what_was_written_stays_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        path = disk / "audit.jsonl"
        for size in (10_000, 0):
            with pytest.raises(StorageError, match="the robot is not to run without"):
                write_until_full(path, size)
        report = verify(path)
        assert report.whole
        assert report.records > 50
        remount(disk, "size=2m")
        AuditLog(path).close()
        assert verify(path, head=report.head.hash).whole


def test_after_a_failure_nothing_more_is_taken(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        log = AuditLog(disk / "audit.jsonl")
        failed = 0
        for _ in range(200):
            try:
                log.write(Kind.STOP, {"text": "x" * 10_000})
            except StorageError:
                failed += 1
        assert failed > 50
        assert "No space left" in log.failure
        remount(disk, "size=4m")
        with pytest.raises(StorageError, match="No space left"):
            log.write(Kind.STOP)
        head = log.close()
        report = verify(log.path, head=head.hash)
        assert report.whole
        assert not report.closed


def test_a_broken_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    head = log.head

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(StorageError, match="Input/output error"):
            log.write(Kind.STOP)
    with pytest.raises(StorageError):
        log.write(Kind.STATE)
    assert log.close() == head
    assert verify(log.path).head == head


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        AuditLog(tmp_path / "absent" / "audit.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        AuditLog(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        verify(tmp_path / "audit.jsonl")
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path / "audit.jsonl"))
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError):
        AuditLog(tmp_path / "link")
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        verify(tmp_path / "target", head="abc")


def test_a_closed_audit_takes_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert log.close() == log.close()
    with pytest.raises(StorageError, match="is closed"):
        log.write(Kind.STOP)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"NaN", b"\\ud800", b"1e999", b"9" * 5000])))
)
def test_nothing_in_a_file_breaks_the_verifier(tmp_path: Path, content: list[bytes]) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(content))
    assert not verify(path).whole
    line = b'{"facts":{"x":%s},"hash":"' + b"0" * 64 + b'","kind":"stop","mono_ns":1,"prev":"%s","seq":0,"wall":""}\n'
    for value in content:
        path.write_bytes(line % (value, b"0") + line % (b"1", value))
        assert not verify(path).whole


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\x00" * 5000, b"[" * 100_000, b"x" * 200_000 + b"\n"])
def test_what_is_no_audit_is_not_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    report = verify(path)
    assert not report.whole
    assert report.records == 0
    assert list(read_records(path)) == []


def test_audit_and_black_box_need_neither_torch_nor_ros() -> None:
    code = (
        "import sys, lehrling.deploy.audit, lehrling.deploy.audit_verify, lehrling.deploy.black_box\n"
        "assert not {'torch', 'rclpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
