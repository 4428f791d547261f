"""Whatever goes wrong, what was sealed stays, the rest repairs, and the error says what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from recordings import ARM6, MS, add_episode, meta, record, write_rows

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.errors import DamageError, InputError, LockedError, StorageError
from lehrling.datasets.files import MANIFEST
from lehrling.datasets.journal import JournalWriter
from lehrling.datasets.journal_read import read_journal
from lehrling.datasets.manifest import read_manifest

SUPPORT = Path(__file__).parents[1] / "support"


def child(code: str, *arguments: str, kill_at: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "LEHRLING_KILL_AT": kill_at}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


RECORD_AND_COMMIT = """
    import sys
    from pathlib import Path
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.sealer import seal
    from recordings import record
    root = Path(sys.argv[1])
    with Dataset.open_for_writing(root) as dataset:
        record(root, "new")
        dataset.commit(seal(root, "new"))
"""


@pytest.mark.parametrize("place", ["seal-written", "seal-synced", "seal-renamed", "commit", "committed"])
def test_a_kill_at_any_step_of_sealing_loses_nothing(sealed: Path, place: str) -> None:
    before = read_manifest(sealed)["one"]
    process = child(RECORD_AND_COMMIT, str(sealed), kill_at=place)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert {e.id for e in Dataset.open(sealed).episodes()} >= {"one", "two"}
    with Dataset.open_for_writing(sealed) as dataset:
        assert dataset.records["new"].status == "sealed"
        assert dataset.records["new"].lengths["joint_position"] == 50
        assert dataset.records["one"] == before
        assert dataset.unfinished() == []
        assert dataset.verify().whole
    assert sorted(p.name for p in (sealed / "episodes").iterdir()) == ["new", "one", "two", "zarr.json"]


RECORD_FOREVER = """
    import sys, time
    from pathlib import Path
    from lehrling.datasets import messages
    from lehrling.datasets.journal import JournalWriter
    from recordings import ARM6, meta
    with JournalWriter(Path(sys.argv[1]), meta("live"), ARM6) as journal:
        for tick in range(100_000):
            journal.write("/tcp_pose", messages.pose_stamped([tick, 0, 0], [0, 0, 0, 1], tick, "cell"), received_ns=tick)
            print(tick, time.monotonic_ns(), flush=True)
            time.sleep(0.001)
"""


@pytest.mark.parametrize("after_s", [0.3, 0.55, 0.8])
def test_every_message_acknowledged_100_ms_before_a_kill_is_in_the_dataset(root: Path, after_s: float) -> None:
    process = child(RECORD_FOREVER, str(root))
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after_s)
    killed_ns = time.monotonic_ns()
    process.kill()
    lines = [first, *process.stdout.readlines()]
    process.wait()
    rows = [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
    promised = max(tick for tick, at in rows if at < killed_ns - 100 * MS)
    with Dataset.open_for_writing(root) as dataset:
        found = dataset.records["live"]
        assert (found.status, found.outcome, found.stop_cause) == ("sealed", "unknown", "interrupted")
        value = dataset.episode("live").stream("tcp_pose").value
    assert len(value) > promised
    np.testing.assert_array_equal(value[:, 0], np.arange(len(value)))


def test_an_interrupted_simulation_is_discarded_since_its_seed_gives_it_again(root: Path) -> None:
    with JournalWriter(root, meta("sim", origin="simulation", seed=4), ARM6) as journal:
        write_rows(journal, 0.2)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.repaired.discarded == ("sim",)
        assert dataset.records["sim"].status == "discarded"
        assert not dataset.repaired.lossy
    assert not (root / "journals" / "sim").exists()


def test_an_unfinished_journal_shows_when_reading_and_is_left_alone(root: Path) -> None:
    with JournalWriter(root, meta("live"), ARM6) as journal:
        write_rows(journal, 0.1)
        dataset = Dataset.open(root)
        assert dataset.unfinished() == ["live"]
        assert dataset.episodes() == []
        journal.close("success", "test")


def test_a_journal_cut_anywhere_gives_a_prefix_and_never_invents_rows(root: Path, tmp_path: Path) -> None:
    with JournalWriter(root, meta("whole"), ARM6, flush_s=30) as journal:
        write_rows(journal, 0.6)
        journal.close("success", "test")
    whole = read_journal(root, "whole").messages["/joint_states"]
    path = root / "journals" / "whole" / "numeric-0.mcap"
    content = path.read_bytes()
    (root / "journals" / "whole" / "end.json").unlink()
    lengths = set()
    for size in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        path.write_bytes(content[:size])
        contents = read_journal(root, "whole")
        rows = contents.messages.get("/joint_states", [])
        assert rows == whole[: len(rows)]
        assert contents.losses == []
        lengths.add(len(rows))
    assert max(lengths) == len(whole)
    assert 0 in lengths


def test_a_flipped_byte_in_an_ended_journal_is_reported(root: Path) -> None:
    record(root, "one")
    path = root / "journals" / "one" / "numeric-0.mcap"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.repaired.lossy
        found = dataset.records["one"]
        assert any("messages were written" in loss for loss in found.losses)
        assert found.lengths["joint_position"] < 50


def test_a_journal_without_meta_is_set_aside_whole(root: Path) -> None:
    record(root, "one")
    (root / "journals" / "one" / "meta.json").write_text("{")
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].status == "quarantined"
        assert "meta.json cannot be read" in dataset.records["one"].reason
    assert (root / "quarantine" / "one" / "front-0.mcap").is_file()


def test_a_torn_last_line_of_the_manifest_is_ignored_and_then_cut(sealed: Path) -> None:
    path = sealed / MANIFEST
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "thr')
    assert [e.id for e in Dataset.open(sealed).episodes()] == ["one", "two"]
    with Dataset.open_for_writing(sealed) as dataset:
        assert dataset.repaired.mended == ("cut a torn line off the manifest",)
    assert path.read_bytes() == whole


def test_a_damaged_line_of_the_manifest_is_an_error_with_its_number(sealed: Path) -> None:
    path = sealed / MANIFEST
    path.write_bytes(b"not json\n" + path.read_bytes())
    with pytest.raises(DamageError, match="Line 1 of"):
        Dataset.open(sealed)


def test_a_second_writer_is_told_who_holds_the_lock(sealed: Path) -> None:
    with Dataset.open_for_writing(sealed), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        Dataset.open_for_writing(sealed)
    Dataset.open_for_writing(sealed).close()


def test_a_killed_writer_leaves_no_lock_behind(sealed: Path) -> None:
    code = """
        import sys, time
        from lehrling.datasets.dataset import Dataset
        dataset = Dataset.open_for_writing(sys.argv[1])
        print("open", flush=True)
        time.sleep(60)
    """
    process = child(code, str(sealed))
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(LockedError, match=f"process {process.pid} on"):
        Dataset.open_for_writing(sealed)
    process.kill()
    process.wait()
    Dataset.open_for_writing(sealed).close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    tool = shutil.which("mount")
    done = subprocess.run(
        [tool or "true", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if tool is None or done.returncode != 0 or not os.path.ismount(mount):
        pytest.skip("a tmpfs cannot be mounted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def record_until_it_fails(root: Path) -> None:
    with JournalWriter(root, meta("big"), ARM6, 0.01) as journal:
        for second in range(500):
            write_rows(journal, 1.0, start_ns=10**18 + second * 1000 * MS)
            time.sleep(0.02)


def test_a_full_disk_while_recording_is_named_and_loses_nothing_sealed(small_disk: Path) -> None:
    root = small_disk / "plant.zarr"
    create_dataset(root)
    add_episode(root, "one")
    with pytest.raises(StorageError, match="No space left"):
        record_until_it_fails(root)
    assert Dataset.open(root).verify().whole
    with pytest.raises(StorageError, match="No space left"):
        Dataset.open_for_writing(root)
    assert [e.id for e in Dataset.open(root).episodes()] == ["one"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["big"].status == "sealed"
        assert dataset.records["big"].lengths["joint_position"] >= 100
        assert dataset.verify().whole


def test_a_read_only_dataset_reads_and_refuses_writing(small_disk: Path) -> None:
    root = small_disk / "plant.zarr"
    create_dataset(root)
    add_episode(root, "one", seconds=0.2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    dataset = Dataset.open(root)
    assert dataset.verify().whole
    assert dataset.episode("one").stream("front").frame(0).shape == (96, 96, 3)
    with pytest.raises(StorageError, match=r"read-only|Read-only"):
        Dataset.open_for_writing(root)


def test_purging_deletes_the_files_and_leaves_a_tombstone(sealed: Path) -> None:
    with Dataset.open_for_writing(sealed) as dataset:
        dataset.purge("one")
    assert not (sealed / "episodes" / "one").exists()
    tombstone = Dataset.open(sealed).records["one"]
    assert tombstone.status == "purged"
    assert (tombstone.instruction, tombstone.operator) == ("", None)
    assert [e.id for e in Dataset.open(sealed).episodes()] == ["two"]
    with Dataset.open_for_writing(sealed) as dataset, pytest.raises(InputError, match="no episode 'one' to purge"):
        dataset.purge("one")


def test_a_purge_that_was_killed_is_finished_at_the_next_opening(sealed: Path) -> None:
    code = """
        import sys
        from lehrling.datasets.dataset import Dataset
        Dataset.open_for_writing(sys.argv[1]).purge("one")
    """
    assert child(code, str(sealed), kill_at="purge-noted").wait(timeout=60) == -signal.SIGKILL
    assert (sealed / "episodes" / "one").exists()
    with Dataset.open_for_writing(sealed) as dataset:
        assert dataset.repaired.mended == ("finished purging one",)
    assert not (sealed / "episodes" / "one").exists()


def test_what_is_no_dataset_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "attributes": {}}))
    for name, reason in (("none", "there is none"), ("empty", "no Lehrling dataset"), ("other", "no Lehrling dataset")):
        with pytest.raises(InputError, match=reason):
            Dataset.open(tmp_path / name)
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="no Lehrling dataset"):
        Dataset.open_for_writing(tmp_path / "other", create=True)


@pytest.mark.parametrize("name", ["../one", "a/b", "", ".hidden", "x" * 200, "a..b", "a\n"])
def test_ids_that_are_paths_are_refused(sealed: Path, name: str) -> None:
    with Dataset.open_for_writing(sealed) as dataset, pytest.raises(InputError, match="Expected an id"):
        dataset.purge(name)
    with pytest.raises(InputError, match="Expected an id"):
        JournalWriter(sealed, meta(name), ARM6)


def test_a_symbolic_link_in_a_dataset_is_refused(sealed: Path, tmp_path: Path) -> None:
    target = sealed / "episodes" / "one" / "front" / "value" / "zarr.json"
    moved = tmp_path / "outside.json"
    shutil.move(target, moved)
    target.symlink_to(moved)
    dataset = Dataset.open(sealed)
    for read in (lambda: dataset.episode("one").stream("front"), lambda: dataset.episode("one").attributes):
        with pytest.raises(InputError, match=r"front/value/zarr\.json is a symbolic link"):
            read()
    assert "is a symbolic link" in dataset.verify().problems["one"][0]


@pytest.mark.parametrize("name", ["episodes/one", "episodes", "manifest.jsonl"])
def test_a_link_that_leads_out_of_a_dataset_is_refused_on_opening(sealed: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / "outside"
    shutil.move(sealed / name, moved)
    (sealed / name).symlink_to(moved)
    with pytest.raises(InputError, match="is a symbolic link"):
        Dataset.open(sealed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"zarr_format": 2}, "Expected a Zarr v3 array"),
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "'numcodecs.pickle', which is not on"),
        ({"shape": [1 << 45, 7]}, "beyond any episode"),
        ({"shape": [-1, 7]}, "beyond any episode"),
    ],
)
def test_hostile_array_metadata_is_refused_before_zarr_sees_it(
    sealed: Path, change: dict[str, object], reason: str
) -> None:
    path = sealed / "episodes" / "one" / "joint_position" / "value" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        _ = Dataset.open(sealed).episode("one").stream("joint_position").value


def test_a_topic_that_the_embodiment_does_not_bind_is_refused(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        with pytest.raises(InputError, match="binds no topic '/nonsense'"):
            journal.write("/nonsense", b"", received_ns=0)
        journal.close("unknown", "test")


def test_a_journal_is_never_written_over(root: Path) -> None:
    record(root, "one")
    with pytest.raises(InputError, match="There is a journal 'one' already"):
        JournalWriter(root, meta("one"), ARM6)


def test_bytes_that_are_no_message_are_damage() -> None:
    with pytest.raises(DamageError, match="Expected a sensor_msgs/msg/JointState, got 3 bytes"):
        messages.decode(b"\x00\x01\x00", "sensor_msgs/msg/JointState")
