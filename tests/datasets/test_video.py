"""Cameras kept as H.264: the codec, and episodes archived with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from flawed import Flaw, add, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lehrling.datasets.codec_video import GROUP_MAX, H264Frames, decode_group, encode_group
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_archive import archive
from lehrling.datasets.edit_cut import trim
from lehrling.datasets.edits import undo
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.resize import decode
from lehrling.datasets.view import Field, ViewSpec, build_view

pytest.importorskip("av")


def moving(count: int, height: int = 96, width: int = 96) -> NDArray[np.uint8]:
    return np.stack([smooth(k)[:height, :width] for k in range(count)])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


GROUP = encode_group(moving(2), 30)


# --- codec ------------------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, GROUP_MAX), st.integers(17, 96), st.integers(17, 96))
def test_a_group_of_any_size_comes_back_alike(count: int, height: int, width: int) -> None:
    frames = moving(count, height, width)
    content = encode_group(frames, 12)
    back = decode_group(content, height, width)
    assert back.shape == frames.shape
    assert encode_group(frames, 12) == content
    for number in range(count):
        assert psnr(back[number], frames[number]) > 30


def test_frames_come_back_in_order() -> None:
    frames = moving(GROUP_MAX)
    back = decode_group(encode_group(frames, 20), 96, 96)
    assert [int(np.argmax([psnr(shown, frame) for frame in frames])) for shown in back] == list(range(GROUP_MAX))


def test_every_cut_of_a_group_is_refused_or_complete() -> None:
    content = encode_group(moving(3), 30)
    for size in range(0, len(content), 7):
        with pytest.raises(ValueError, match="expected"):
            decode_group(content[:size], 96, 96)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(place: int, bit: int) -> None:
    content = bytearray(GROUP)
    content[place % len(content)] ^= 1 << bit
    with pytest.raises(ValueError, match="expected"):
        decode_group(bytes(content), 96, 96)


@pytest.mark.parametrize(
    "shape", [(0, 8, 8, 3), (9, 8, 8, 3), (1, 8, 8, 4), (8, 8, 3)], ids=["none", "too many", "alpha", "no group"]
)
def test_what_is_no_group_is_not_encoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="Expected 1 to 8 frames"):
        encode_group(np.zeros(shape, np.uint8))


def test_another_size_than_declared_is_refused_before_decoding() -> None:
    with pytest.raises(ValueError, match="expected a group of pictures of 4000 x 4000, got b'LH26', 2 of 96 x 96"):
        decode_group(encode_group(moving(2)), 4000, 4000)


def test_zarr_python_writes_and_reads_it_by_its_name(tmp_path: Path) -> None:
    frames = moving(11)
    array = zarr.create_array(
        tmp_path / "a", shape=frames.shape, chunks=(8, 96, 96, 3), dtype="uint8", serializer=H264Frames(15),
        compressors=None, fill_value=0,
    )  # fmt: skip
    array[...] = frames
    back = np.asarray(zarr.open_array(tmp_path / "a", mode="r")[...])
    assert psnr(back, frames) > 30
    with pytest.raises(ValueError, match="crf from 0 to 51"):
        H264Frames.from_dict({"name": "lehrling.h264", "configuration": {"crf": 99}})


# --- episodes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    root = tmp_path / "plant.zarr"
    add(root, "one", Flaw(seconds=2.1, front=smooth, wrist=smooth))
    add(root, "two", Flaw(seconds=1.0))
    return root


def archived(root: Path, *cameras: str, crf: int = 18) -> Dataset:
    with Dataset.open_for_writing(root) as dataset:
        archive(dataset, [dataset.records["one"]], cameras or None, crf)
    return Dataset.open(root)


def test_an_archived_episode_shows_its_frames_and_keeps_all_else_byte_for_byte(plant: Path) -> None:
    before = Dataset.open(plant).episode("one")
    frames = np.stack([before.stream("front").frame(k) for k in range(len(before.stream("front")))])
    dataset = archived(plant)
    now = dataset.episode("one.v1")
    assert dataset.records["one"].status == "replaced"
    assert dataset.verify().whole
    assert now.record.parent is not None
    assert (now.record.parent.id, now.record.parent.content_hash) == ("one", before.record.content_hash)
    assert now.stream("front").is_video
    assert len(now.stream("front")) == len(frames) == 21
    for number in (20, 0, 7, 8, 15, 16, 3):
        assert psnr(np.asarray(now.stream("front").frame(number)), frames[number]) > 30
    for stream in now.streams:
        np.testing.assert_array_equal(now.stream(stream).stamp_ns, before.stream(stream).stamp_ns)
    np.testing.assert_array_equal(now.stream("joint_position").value, before.stream("joint_position").value)
    assert psnr(decode(now.stream("front").encoded(9)), frames[9]) > 27
    whole = np.asarray(zarr.open_array(now.directory / "front" / "value", mode="r")[...])
    np.testing.assert_array_equal(whole[13], now.stream("front").frame(13))


def test_cameras_are_chosen_and_the_others_keep_their_jpegs(plant: Path) -> None:
    before = Dataset.open(plant).episode("one").stream("wrist").encoded(4)
    now = archived(plant, "front").episode("one.v1")
    assert (now.stream("front").is_video, now.stream("wrist").is_video) == (True, False)
    assert now.stream("wrist").encoded(4) == before


def test_an_archive_is_smaller_and_can_be_taken_back(plant: Path) -> None:
    size = Dataset.open(plant).records["one"].bytes
    assert archived(plant, crf=28).records["one.v1"].bytes < 0.7 * size
    with Dataset.open_for_writing(plant) as dataset:
        undo(dataset)
        assert [episode.id for episode in dataset.episodes()] == ["one", "two"]


def test_an_archived_episode_can_be_trimmed_without_encoding_again(plant: Path) -> None:
    archived(plant)
    with Dataset.open_for_writing(plant) as dataset:
        trim(dataset, [dataset.records["one.v1"]], 1.0)
    dataset = Dataset.open(plant)
    parts = [episode for episode in dataset.episodes() if episode.id.startswith("one.v1.")]
    whole = dataset.episode_of(dataset.records["one.v1"]).stream("front")
    part = parts[0].stream("front")
    assert len(part) < len(whole)
    np.testing.assert_array_equal(part.frame(len(part) - 1), whole.frame(len(whole) - 1))


def test_views_are_built_from_archives(plant: Path) -> None:
    spec = ViewSpec(
        rate_hz=10, image_px=48, cameras=("front",), state=(Field(stream="joint_position"),),
        action=(Field(stream="gripper_command"),),
    )  # fmt: skip
    before = build_view(Dataset.open(plant), "before", spec).images("front").batch(range(15))
    after = build_view(archived(plant), "after", spec)
    place = next(e.start for e in after.episodes if e.id == "one.v1")
    assert psnr(after.images("front").batch(range(place, place + 15)), before) > 27


def test_what_cannot_be_archived_is_refused(plant: Path) -> None:
    with Dataset.open_for_writing(plant) as dataset:
        one = [dataset.records["one"]]
        with pytest.raises(InputError, match=r"Expected colour cameras of 'one' \(front, wrist\), got 'rear'"):
            archive(dataset, one, ["rear"])
        with pytest.raises(InputError, match="crf from 0 to 51"):
            archive(dataset, one, crf=60)
        archive(dataset, one)
        with pytest.raises(InputError, match="that is no video yet"):
            archive(dataset, [dataset.records["one.v1"]])
        with pytest.raises(DamageError, match="hardly to be seen"):
            archive(dataset, [dataset.records["two"]], crf=51)
        assert [episode.id for episode in dataset.episodes()] == ["two", "one.v1"]


def test_a_damaged_group_is_told_with_its_place(plant: Path) -> None:
    dataset = archived(plant)
    path = dataset.root / "episodes" / "one.v1" / "front" / "value" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[:40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DamageError, match=r"Group 0 of .* is damaged"):
        dataset.episode("one.v1").stream("front").frame(2)
    assert not dataset.verify().whole
