"""Imports of robomimic's and ALOHA's HDF5 files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import simplejpeg
from hdf5_files import aloha, image, images, numbers, padded, robomimic

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.datasets.frame_import import FrameOptions
from lehrling.datasets.hdf5_import import import_hdf5
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.view import Field, ViewSpec, build_view


def test_robomimic_comes_in_bit_for_bit_at_the_rate_that_it_says(tmp_path: Path) -> None:
    report = import_hdf5(robomimic(tmp_path / "a.hdf5"), tmp_path / "d.zarr")
    assert (report.format, report.rate_hz) == ("robomimic", 20.0)
    assert [(e.name, e.frames, e.new) for e in report.episodes] == [
        ("demo_0", 4, True),
        ("demo_1", 6, True),
        ("demo_10", 5, True),
    ]
    assert list(report.left_out) == ["agentview_depth"]
    assert report.lossy
    for number, episode in enumerate(Dataset.open(tmp_path / "d.zarr").episodes()):
        frames = (4, 6, 5)[number]
        np.testing.assert_array_equal(episode.stream("action").value, numbers(number, frames, 7))
        np.testing.assert_array_equal(episode.stream("robot0_eef_pos").value, numbers(number + 100, frames, 3))
        np.testing.assert_array_equal(episode.stream("states").value, numbers(number + 50, frames, 9))
        np.testing.assert_array_equal(episode.stream("next_reward").value.reshape(-1), np.arange(frames) / 7)
        assert episode.stream("next_done").value.reshape(-1).tolist() == [0] * (frames - 1) + [1]
        np.testing.assert_array_equal(episode.stream("action").stamp_ns, np.arange(frames) * 50_000_000)
        for frame in range(frames):
            shown = episode.stream("agentview").frame(frame).astype(int)
            assert np.abs(shown - image(number, frame)).mean() < 3
        roles = {stream.name: stream.role for stream in episode.contract.streams}
        assert roles["action"] == "action"
        assert roles["robot0_eef_pos"] == "observation"
        assert roles["states"] == roles["next_reward"] == "auxiliary"


@pytest.mark.parametrize("packed", [False, True])
def test_aloha_comes_in_from_a_folder_with_pixels_or_packed_jpegs(packed: bool, tmp_path: Path) -> None:
    report = import_hdf5(aloha(tmp_path / "a", packed=packed), tmp_path / "d.zarr", FrameOptions(rate_hz=50))
    assert (report.format, [e.name for e in report.episodes]) == ("ALOHA", ["episode_0", "episode_1", "episode_2"])
    assert not report.lossy
    for number, episode in enumerate(Dataset.open(tmp_path / "d.zarr").episodes()):
        np.testing.assert_array_equal(episode.stream("state").value, numbers(number, 4, 14))
        np.testing.assert_array_equal(episode.stream("velocity").value, numbers(number + 100, 4, 14))
        np.testing.assert_array_equal(episode.stream("action").value, numbers(number + 200, 4, 14))
        for seed, camera in enumerate(("cam_high", "cam_left_wrist")):
            shown = images(10 * number + seed, 4)
            if packed:
                assert episode.stream(camera).encoded(1) == padded(shown)[1].tobytes().rstrip(b"\0")
            assert np.abs(episode.stream(camera).frame(3).astype(int) - shown[3]).mean() < 4


def test_blue_and_red_are_changed_where_asked_for(tmp_path: Path) -> None:
    for packed in (False, True):
        root = tmp_path / f"{packed}.zarr"
        import_hdf5(aloha(tmp_path / f"a{packed}", 1, packed=packed), root, FrameOptions(rate_hz=50, bgr=True))
        shown = Dataset.open(root).episodes()[0].stream("cam_high").frame(0).astype(int)
        assert np.abs(shown - image(0, 0)[..., ::-1]).mean() < 4


def test_what_came_in_gives_a_view_and_goes_out_to_lerobot(tmp_path: Path) -> None:
    import_hdf5(robomimic(tmp_path / "a.hdf5"), tmp_path / "d.zarr")
    spec = ViewSpec(
        rate_hz=20,
        image_px=32,
        cameras=("agentview",),
        state=(Field(stream="robot0_eef_pos"),),
        action=(Field(stream="action"),),
    )
    opened = Dataset.open(tmp_path / "d.zarr")
    view = build_view(opened, "train", spec)
    np.testing.assert_array_equal(view.action[:4], numbers(0, 4, 7).astype(np.float32))
    assert len(view) == 15
    assert view.valid.all()
    assert not view.age_ns.any()
    assert export_lerobot(opened, tmp_path / "out", ExportOptions(spec)).frames == 15


def test_a_second_import_keeps_what_is_there(tmp_path: Path) -> None:
    import_hdf5(robomimic(tmp_path / "a.hdf5"), tmp_path / "d.zarr")
    again = import_hdf5(tmp_path / "a.hdf5", tmp_path / "d.zarr")
    assert [episode.new for episode in again.episodes] == [False] * 3
    assert len(Dataset.open(tmp_path / "d.zarr").episodes()) == 3


def test_an_interrupted_import_is_finished_by_the_next(tmp_path: Path) -> None:
    source = robomimic(tmp_path / "a.hdf5")

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_hdf5(source, tmp_path / "d.zarr", progress=stop)
    assert [episode.new for episode in import_hdf5(source, tmp_path / "d.zarr").episodes] == [False, True, True]
    opened = Dataset.open(tmp_path / "d.zarr")
    assert (len(opened.episodes()), opened.unfinished(), opened.verify().whole) == (3, [], True)


def test_the_instruction_is_the_files_unless_another_is_given(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "a.hdf5", (4, 5))
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = '{"language_instruction": ["put", "the", "bowl", "away"]}'
    import_hdf5(path, tmp_path / "d.zarr")
    assert Dataset.open(tmp_path / "d.zarr").episodes()[0].record.instruction == "put the bowl away"
    import_hdf5(path, tmp_path / "e.zarr", FrameOptions(instruction="tidy up", outcome="success"))
    record = Dataset.open(tmp_path / "e.zarr").episodes()[0].record
    assert (record.instruction, record.outcome) == ("tidy up", "success")


# One broken episode costs no other


def in_demo(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file["data/demo_1"])

    return harm


def replaced(name: str, values: Any) -> Callable[[Path], None]:
    def change(demo: Any) -> None:
        del demo[name]
        demo[name] = values

    return in_demo(change)


def elsewhere(demo: Any) -> None:
    del demo["actions"]
    demo["actions"] = h5py.ExternalLink("/etc/passwd", "/data")


def soft(demo: Any) -> None:
    del demo["actions"]
    demo["actions"] = h5py.SoftLink("/data/demo_0/actions")


def virtual(demo: Any) -> None:
    del demo["actions"]
    layout = h5py.VirtualLayout((6, 7), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "actions", (6, 7))
    demo.create_virtual_dataset("actions", layout)


def external(demo: Any) -> None:
    del demo["actions"]
    demo.create_dataset("actions", (6, 7), "f8", external="/etc/passwd")


def filtered(demo: Any) -> None:
    del demo["actions"]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((6, 7))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((6, 7))
    h5py.h5d.create(demo.id, b"actions", h5py.h5t.IEEE_F64LE, space, settings)


def bomb(demo: Any) -> None:
    del demo["actions"]
    demo.create_dataset("actions", (6, 1 << 28), "f8", chunks=(1, 1 << 27), compression="gzip")


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "link to another file": (in_demo(elsewhere), "actions is a link that may lead elsewhere"),
    "soft link": (in_demo(soft), "actions is a link that may lead elsewhere"),
    "virtual": (in_demo(virtual), "actions keeps its data in other files"),
    "external": (in_demo(external), "actions keeps its data in other files"),
    "unknown filter": (in_demo(filtered), "needs the HDF5 filter 32015"),
    "chunks beyond bounds": (in_demo(bomb), "stored in chunks of 1073741824 bytes"),
    "other length": (replaced("actions", np.zeros((5, 7))), "differ in length"),
    "no number": (replaced("actions", np.full((6, 7), np.nan)), "action is no finite number in frame 0"),
    "other width": (replaced("actions", np.zeros((6, 8))), "not those of the first episode; see action"),
    "array missing": (in_demo(lambda demo: demo.pop("rewards")), "not those of the first episode; see next.reward"),
    "group for an array": (
        in_demo(lambda demo: [demo.pop("rewards"), demo.create_group("rewards")]),
        "rewards is no array",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_episode_is_refused_by_itself(name: str, tmp_path: Path) -> None:
    path = robomimic(tmp_path / "a.hdf5")
    harm, sentence = BREAKS[name]
    harm(path)
    report = import_hdf5(path, tmp_path / "d.zarr")
    assert [episode.name for episode in report.episodes] == ["demo_0", "demo_10"]
    assert list(report.refused) == ["demo_1"]
    assert sentence in report.refused["demo_1"]
    assert report.refused["demo_1"].rstrip(".").count(". ") == 0
    assert Dataset.open(tmp_path / "d.zarr").unfinished() == []


def test_a_file_of_a_folder_that_is_cut_costs_no_other(tmp_path: Path) -> None:
    folder = aloha(tmp_path / "a")
    os.truncate(folder / "episode_1.hdf5", 3000)
    report = import_hdf5(folder, tmp_path / "d.zarr", FrameOptions(rate_hz=50))
    assert [episode.name for episode in report.episodes] == ["episode_0", "episode_2"]
    assert "episode_1.hdf5 cannot be read as HDF5" in report.refused["episode_1"]


def test_a_packed_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = aloha(tmp_path / "a", packed=True)
    with h5py.File(folder / "episode_2.hdf5", "a") as file:
        rows = file["observations/images/cam_high"]
        rows[1] = 7
        small = np.frombuffer(simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)), np.uint8)
        rows[2, : len(small)] = small
    report = import_hdf5(folder, tmp_path / "d.zarr", FrameOptions(rate_hz=50))
    assert "PNG or JPEG as observation.images.cam_high" in report.refused["episode_2"]


# Refused as a whole


def test_what_cannot_be_taken_at_all_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "d.zarr"
    with pytest.raises(InputError, match=r"how many frames.*--rate"):
        import_hdf5(aloha(tmp_path / "aloha"), root)
    with pytest.raises(InputError, match="Expected an HDF5 file"):
        import_hdf5(tmp_path / "absent", root)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(LehrlingError, match="cannot be read as HDF5"):
        import_hdf5(tmp_path / "text.hdf5", root)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(InputError, match=r"robomimic's files or .* ALOHA's"):
        import_hdf5(tmp_path / "other.hdf5", root)
    with h5py.File(tmp_path / "none.hdf5", "w") as file:
        file.create_group("data/demo_0")
    with pytest.raises(InputError, match="no episode"):
        import_hdf5(tmp_path / "none.hdf5", root)
    path = robomimic(tmp_path / "a.hdf5")
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(LehrlingError, match="cannot be read as HDF5"):
        import_hdf5(path, root)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"lehrling-datasets\[hdf5\]"):
        import_hdf5(path, root)
    assert not root.exists()
