"""Imports of replay buffers of diffusion_policy and UMI."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from hdf5_files import numbers
from replay_buffers import ACTIONS, FLOATS, LENGTHS, PIXELS, POSITIONS, changed, replay_buffer, zipped

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError, LehrlingError
from lehrling.datasets.frame_import import FrameOptions
from lehrling.datasets.replay_array import open_array, unpacked
from lehrling.datasets.replay_import import import_replay
from lehrling.datasets.replay_store import FolderStore
from lehrling.datasets.view import Field, ViewSpec, build_view

OPTIONS = FrameOptions(rate_hz=20, instruction="push the T", task="pusht", outcome="success")
STARTS = (0, 4, 10)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a buffer that is not to be changed."""
    return replay_buffer(tmp_path_factory.mktemp("source") / "buffer.zarr", codec=numcodecs.Blosc())


def assert_whole(root: Path) -> None:
    episodes = Dataset.open(root).episodes()
    assert [len(episode.stream("action")) for episode in episodes] == list(LENGTHS)
    for episode, start, length in zip(episodes, STARTS, LENGTHS, strict=True):
        rows = slice(start, start + length)
        np.testing.assert_array_equal(episode.stream("action").value, ACTIONS[rows])
        np.testing.assert_array_equal(episode.stream("robot0_eef_pos").value, POSITIONS[rows])
        np.testing.assert_array_equal(episode.stream("action").stamp_ns, np.arange(length) * 50_000_000)
        for frame in range(length):
            shown = episode.stream("camera0_rgb").frame(frame).astype(int)
            assert np.abs(shown - PIXELS[start + frame]).mean() < 3
        assert episode.record.instruction == "push the T"
        assert (episode.record.task, episode.record.outcome) == ("pusht", "success")


def test_a_folder_comes_in_bit_for_bit_and_again_without_doubles(buffer: Path, tmp_path: Path) -> None:
    report = import_replay(buffer, tmp_path / "d.zarr", OPTIONS)
    assert [(e.name, e.frames, e.new) for e in report.episodes] == [
        ("episode_0", 4, True),
        ("episode_1", 6, True),
        ("episode_2", 5, True),
    ]
    assert not report.lossy
    assert_whole(tmp_path / "d.zarr")
    roles = {s.name: s.role for s in Dataset.open(tmp_path / "d.zarr").episodes()[0].contract.streams}
    assert (roles["action"], roles["robot0_eef_pos"]) == ("action", "observation")
    again = import_replay(buffer, tmp_path / "d.zarr", OPTIONS)
    assert [episode.new for episode in again.episodes] == [False] * 3


@pytest.mark.parametrize("top", ["", "replay_buffer.zarr/"])
def test_a_zip_comes_in_as_its_folder_does(buffer: Path, tmp_path: Path, top: str) -> None:
    source = zipped(buffer, tmp_path / "buffer.zarr.zip", top)
    assert not import_replay(source, tmp_path / "d.zarr", OPTIONS).lossy
    assert_whole(tmp_path / "d.zarr")


@pytest.mark.parametrize(
    "codec",
    [
        None,
        numcodecs.Blosc("zstd", 3, numcodecs.Blosc.BITSHUFFLE),
        numcodecs.Blosc("zlib"),
        numcodecs.Zlib(),
        numcodecs.GZip(),
        numcodecs.Zstd(),
        numcodecs.LZ4(),
    ],
    ids=lambda codec: "none" if codec is None else f"{codec.codec_id}-{getattr(codec, 'cname', '')}",
)
def test_every_codec_of_the_allow_list_gives_the_values_that_zarr_gives(codec: Any, tmp_path: Path) -> None:
    arrays = {"a": numbers(0, 15, 5), "b": np.arange(30, dtype=">i4").reshape(15, 2), "c": np.arange(15) % 2 == 0}
    root = replay_buffer(tmp_path / "b.zarr", arrays, codec=codec)
    for name, values in arrays.items():
        array = open_array(FolderStore(root), f"data/{name}")
        for start, stop in ((0, 15), (3, 5), (4, 8), (14, 15)):
            np.testing.assert_array_equal(array.rows(start, stop), values[start:stop])


def test_pictures_of_floats_come_in_where_they_are_pixels(tmp_path: Path) -> None:
    arrays = {
        "img": FLOATS,
        "action": ACTIONS,
        "unit": FLOATS / 255,
        "depth": FLOATS[..., :1],
        "n_contacts": ACTIONS[:, :1],
    }
    source = replay_buffer(tmp_path / "b.zarr", arrays)
    report = import_replay(source, tmp_path / "d.zarr", OPTIONS)
    assert set(report.left_out) == {"unit", "depth"}
    assert "no pixels from 0 to 255" in report.left_out["unit"]
    assert report.lossy
    shown = Dataset.open(tmp_path / "d.zarr").episodes()[1].stream("img").frame(2).astype(int)
    assert np.abs(shown - FLOATS[6]).mean() < 3


def test_what_came_in_gives_a_view(buffer: Path, tmp_path: Path) -> None:
    import_replay(buffer, tmp_path / "d.zarr", OPTIONS)
    spec = ViewSpec(
        rate_hz=20,
        image_px=32,
        cameras=("camera0_rgb",),
        state=(Field(stream="robot0_eef_pos"),),
        action=(Field(stream="action"),),
    )
    view = build_view(Dataset.open(tmp_path / "d.zarr"), "train", spec)
    np.testing.assert_array_equal(view.action, ACTIONS.astype(np.float32))
    np.testing.assert_array_equal(view.state, POSITIONS)


def test_without_a_rate_or_a_buffer_nothing_is_made(buffer: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give it with --rate"):
        import_replay(buffer, tmp_path / "d.zarr")
    with pytest.raises(InputError, match=r"but there is none"):
        import_replay(tmp_path / "absent", tmp_path / "d.zarr", OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"`meta/episode_ends`"):
        import_replay(tmp_path / "empty", tmp_path / "d.zarr", OPTIONS)
    (tmp_path / "empty" / "zarr.json").write_text("{}")
    with pytest.raises(InputError, match=r"is Zarr v3"):
        import_replay(tmp_path / "empty", tmp_path / "d.zarr", OPTIONS)
    (tmp_path / "a.zarr.zip").write_bytes(b"no zip")
    with pytest.raises(DamageError, match=r"cannot be read as a zip"):
        import_replay(tmp_path / "a.zarr.zip", tmp_path / "d.zarr", OPTIONS)
    assert not (tmp_path / "d.zarr").exists()


def test_a_lost_chunk_costs_its_episodes_alone_and_reads_as_no_zeros(buffer: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(buffer, tmp_path / "b.zarr"))
    (source / "data/action/0.0").unlink()
    report = import_replay(source, tmp_path / "d.zarr", OPTIONS)
    assert [episode.name for episode in report.episodes] == ["episode_1", "episode_2"]
    assert "chunk data/action/0.0 is missing, and would read as zeros" in report.refused["episode_0"]
    (source / "data/camera0_rgb/3.1.1.1").write_bytes(b"cut")
    report = import_replay(source, tmp_path / "e.zarr", OPTIONS)
    assert "data/camera0_rgb/3.1.1.1" in report.refused["episode_2"]


@pytest.mark.parametrize(
    ("array", "facts", "told"),
    [
        ("data/action", {"compressor": {"id": "pickle"}}, "codec 'pickle', which is not on the allow-list"),
        ("data/action", {"compressor": {"id": "imagecodecs_lzma"}}, "not on the allow-list"),
        ("data/camera0_rgb", {"compressor": {"id": "imagecodecs_jpegxl"}}, "JPEG XL.*copy the buffer once with Blosc"),
        ("data/action", {"filters": [{"id": "pickle"}]}, "filters of numcodecs"),
        ("data/action", {"dtype": "|O"}, r"holds \|O, and not numbers; objects would have to be unpickled"),
        ("data/action", {"dtype": [["a", "<f4"]]}, "and not numbers"),
        ("data/action", {"shape": [15, -7]}, "declares the size"),
        ("data/action", {"shape": [15, 1 << 60]}, "declares the size"),
        ("data/action", {"shape": [15, True]}, "declares the size"),
        ("data/action", {"chunks": [0, 7]}, "declares the size"),
        ("data/action", {"chunks": [1 << 20, 1 << 10]}, "stored in chunks of 8589934592 bytes"),
        ("data/action", {"chunks": [4]}, "do not fit each other"),
        ("data/action", {"shape": [16, 7]}, "has 16 rows, but the last episode ends at 15"),
        ("data/action", {"dimension_separator": "/../../"}, "separates its chunks' numbers"),
        ("data/action", {"zarr_format": 3}, "no array of Zarr v2"),
        ("meta/episode_ends", {"shape": [3, 1], "chunks": [3, 1]}, "no list of rows"),
        ("meta/episode_ends", {"dtype": "<f8"}, "no list of rows"),
        ("meta/episode_ends", {"shape": [1 << 30]}, "no list of rows"),
    ],
)
def test_what_an_array_says_is_checked_before_anything_is_unpacked(
    buffer: Path, tmp_path: Path, array: str, facts: dict[str, object], told: str
) -> None:
    source = changed(buffer, array, tmp_path / "b.zarr", **facts)
    with pytest.raises(InputError, match=told):
        import_replay(source, tmp_path / "d.zarr", OPTIONS)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("ends", [(4, 4, 15), (4, 3, 15), (0, 4, 15), (-3, 4, 15)])
def test_ends_that_do_not_go_up_are_refused(tmp_path: Path, ends: tuple[int, ...]) -> None:
    source = replay_buffer(tmp_path / "b.zarr", {"action": ACTIONS}, tuple(np.diff((0, *ends))))
    with pytest.raises(InputError, match=r"does not go up"):
        import_replay(source, tmp_path / "d.zarr", OPTIONS)


BOMB = bytes(64 << 20)


@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        ("zlib", zlib.compress(BOMB)),
        ("gzip", gzip.compress(BOMB)),
        ("zstd", numcodecs.Zstd().encode(BOMB)),
        ("lz4", numcodecs.LZ4().encode(BOMB)),
        ("blosc", numcodecs.Blosc("zstd").encode(BOMB)),
        ("lz4", struct.pack("<I", 2**31 - 1) + b"\0" * 64),
        ("blosc", struct.pack("<BBBBIII", 2, 1, 1, 8, 2**31 - 1, 2**20, 64) + b"\0" * 48),
        ("", b"\0" * 400),
    ],
)
def test_a_chunk_that_unpacks_to_more_than_it_is_costs_no_memory(codec: str, packed: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=r"refused"):
        unpacked(packed, codec, 800, "here")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("codec", ["zlib", "gzip", "zstd", "lz4", "blosc"])
@pytest.mark.parametrize("packed", [b"", b"abc", bytes(64), b"\xff" * 64])
def test_a_chunk_that_is_none_is_refused(codec: str, packed: bytes) -> None:
    with pytest.raises((InputError, DamageError)):
        unpacked(packed, codec, 800, "here")


def test_a_chunk_that_unpacks_to_less_is_refused() -> None:
    for codec in (numcodecs.Zlib(), numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.LZ4()):
        with pytest.raises(InputError):
            unpacked(bytes(codec.encode(b"1234" * 100)), codec.codec_id, 800, "here")


def _link(source: Path, name: str, target: Path) -> None:
    (source / name).rename(target)
    (source / name).symlink_to(target)


@pytest.mark.parametrize("name", ["data", "data/action", "data/action/0.0", "data/action/.zarray"])
def test_links_are_not_followed(buffer: Path, tmp_path: Path, name: str) -> None:
    source = Path(shutil.copytree(buffer, tmp_path / "b.zarr"))
    _link(source, name, tmp_path / "outside")
    if name.endswith("0.0"):
        report = import_replay(source, tmp_path / "d.zarr", OPTIONS)
        assert "symbolic link" in report.refused["episode_0"]
    else:
        with pytest.raises(InputError, match=r"symbolic link"):
            import_replay(source, tmp_path / "d.zarr", OPTIONS)


def test_pipes_are_not_opened(buffer: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(buffer, tmp_path / "b.zarr"))
    (source / "data/action/0.0").unlink()
    os.mkfifo(source / "data/action/0.0")
    assert "no regular file" in import_replay(source, tmp_path / "d.zarr", OPTIONS).refused["episode_0"]


def _member(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_STORED, mode: int = 0o100644) -> None:
    """Put a member into a zip in the place of the one that it has."""
    with zipfile.ZipFile(path) as archive:
        kept = [(member, archive.read(member)) for member in archive.infolist() if member.filename != name]
    with zipfile.ZipFile(path, "w") as archive:
        for member, held in kept:
            archive.writestr(member, held)
        made = zipfile.ZipInfo(name)
        made.external_attr, made.compress_type = mode << 16, method
        archive.writestr(made, content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: _member(path, "data/action/0.0", b"/etc/passwd", mode=0o120777), "is no plain file"),
        (lambda path: _member(path, "data/action/0.0", b"x", zipfile.ZIP_LZMA), "packed by method 14"),
        (lambda path: _member(path, "data/action/0.0", BOMB, zipfile.ZIP_DEFLATED), "67108864 bytes, where at most"),
    ],
)
def test_a_zips_members_are_checked_before_they_are_read(
    buffer: Path, tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    source = zipped(buffer, tmp_path / "b.zarr.zip")
    change(source)
    report = import_replay(source, tmp_path / "d.zarr", OPTIONS)
    assert told in report.refused["episode_0"]
    assert [episode.name for episode in report.episodes] == ["episode_1", "episode_2"]


def test_members_with_names_that_lead_out_are_never_written(buffer: Path, tmp_path: Path) -> None:
    source = zipped(buffer, tmp_path / "b.zarr.zip")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("data/../../../outside/0.0", b"x")
        archive.writestr("/outside", b"x")
    with pytest.raises(InputError, match=r"data/\.\., is no array|no array of Zarr v2"):
        import_replay(source, tmp_path / "d.zarr", OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zarr.zip"]


def test_a_zip_with_any_byte_changed_comes_in_or_is_refused_in_a_sentence(buffer: Path, tmp_path: Path) -> None:
    content = zipped(buffer, tmp_path / "b.zarr.zip").read_bytes()
    told: list[str] = []
    for place in np.random.default_rng(0).integers(0, len(content), 12):
        bent = bytearray(content)
        bent[place] ^= 0xFF
        (tmp_path / "bent.zip").write_bytes(bent)
        root = tmp_path / f"{place}.zarr"
        try:
            import_replay(tmp_path / "bent.zip", root, OPTIONS)
        except LehrlingError as error:
            told.append(str(error))
    assert not any("\n" in sentence for sentence in told)
