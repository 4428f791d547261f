from __future__ import annotations

import json
import multiprocessing as mp
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from view_robots import MS, arm_messages, humanoid_messages, jpeg, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import ContractError, DamageError, InputError, LockedError
from lehrling.datasets.resize import decode, encode, resize_image
from lehrling.datasets.view import EpisodeFilter, Field, View, ViewSpec, build_view
from lehrling.datasets.view_build import _claimed
from lehrling.datasets.view_parts import Part, new_part
from lehrling.datasets.windows import chunk_indices, usable_rows

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.view_layout import Layout

ARM = ViewSpec(
    rate_hz=20,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position"),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")), Field(stream="gripper_command")),
)
CROP = {"top": 0, "left": 0, "height": 20, "width": 20}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    record(root, "a", arm_messages(1))
    record(root, "b", arm_messages(2, steps=30), task="sort")
    record(root, "failed", arm_messages(3), outcome="failure")
    return root


@pytest.fixture
def root(plant: Path, tmp_path: Path) -> Path:
    """A copy of the plant's dataset."""
    return shutil.copytree(plant, tmp_path / "copy.zarr")


def content(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def build(root: Path, spec: ViewSpec = ARM, name: str = "train") -> View:
    return build_view(Dataset.open(root), name, spec)


def test_a_view_joins_the_episodes_that_did_not_fail(root: Path) -> None:
    view = build(root)
    assert [(e.id, e.instruction, e.task) for e in view.episodes] == [
        ("a", "stack the a", "stack"),
        ("b", "sort the b", "sort"),
    ]
    assert view.state_names[0] == "joint_position.joint1"
    assert view.action_names == ("tcp_command.x", "tcp_command.y", "tcp_command.z", "gripper_command.gripper")
    assert view.state.shape == (len(view), 7)
    assert view.action.shape == (len(view), 4)
    assert view.state.dtype == view.action.dtype == np.float32
    assert view.valid.all()
    assert view.episode_index.tolist() == [0] * view.episodes[0].stop + [1] * (len(view) - view.episodes[1].start)
    assert view.skipped == {}
    assert view.stale == ""


def test_rows_run_from_the_first_complete_observation_to_the_last_action(root: Path) -> None:
    view, dataset = build(root), Dataset.open(root)
    for place, entry in enumerate(view.episodes):
        stamps = view.row_stamp_ns[entry.start : entry.stop]
        episode = dataset.episode(entry.id)
        received = [episode.stream(name).received_ns[0] for name in ("joint_position", "front", "wrist")]
        assert stamps[0] == max(received)
        assert (np.diff(stamps) == 50 * MS).all()
        last = int(episode.stream("tcp_command").stamp_ns[-1])
        assert last - 50 * MS < stamps[-1] <= last
        assert (view.episode_index[entry.start : entry.stop] == place).all()


def test_every_row_shows_the_newest_received_observation_and_the_nearest_action(root: Path) -> None:
    view, dataset = build(root), Dataset.open(root)
    for entry in view.episodes:
        episode = dataset.episode(entry.id)
        joints, command, front = (episode.stream(n) for n in ("joint_position", "tcp_command", "front"))
        for row in range(entry.start, entry.stop):
            t = int(view.row_stamp_ns[row])
            known = np.flatnonzero(joints.received_ns <= t)
            newest = known[np.argmax(joints.stamp_ns[known])]
            assert view.state[row].tolist() == joints.value[newest].astype(np.float32).tolist()
            assert view.age_ns[row, 0] == t - joints.stamp_ns[newest]
            nearest = np.argmin(np.abs(command.stamp_ns - t))
            assert view.action[row, 0] == np.float32(command.value[nearest, 0])
            seen = np.flatnonzero(front.received_ns <= t)[-1]
            assert view.images("front").encoded(row) == front.encoded(int(seen))


def test_images_of_the_right_size_keep_their_bytes_and_are_stored_once(root: Path) -> None:
    view = build(root)
    assert view.images("front").encoded(0) == jpeg(0, 2, 96)
    assert view.images("wrist").encoded(0) == jpeg(0, 3, 96)
    frames = zarr.open_group(view.directory, mode="r")["images/front"]
    assert isinstance(frames, zarr.Array)
    assert frames.shape[0] == view.episodes[-1].frames["front"][1] == 20 + 15


def test_a_plain_zarr_reader_gets_the_same_pixels(root: Path) -> None:
    view = build(root)
    frames = view.images("wrist")
    stored = zarr.open_array(view.directory / "images" / "wrist", mode="r")
    for row in (0, 1, len(view) - 1):
        assert (np.asarray(stored[int(frames.frame_of_row[row])]) == frames[row]).all()
    assert (np.asarray(zarr.open_array(view.directory / "state", mode="r")[...]) == view.state).all()


def test_a_batch_of_images_equals_the_images_one_by_one(root: Path) -> None:
    frames = build(root).images("front")
    rows = [3, 0, 3, len(frames) - 1]
    got = frames.batch(rows)
    assert got.shape == (4, 96, 96, 3)
    assert (got == np.stack([frames[row] for row in rows])).all()
    assert (frames[-1] == frames[len(frames) - 1]).all()
    with pytest.raises(IndexError):
        frames[len(frames)]


def test_images_as_recorded_keep_their_bytes_and_their_own_size(tmp_path: Path) -> None:
    root = tmp_path / "wide.zarr"
    record(root, "a", humanoid_messages(), load_embodiment("humanoid"))
    dataset = Dataset.open(root)
    spec = ViewSpec(
        rate_hz=10, image_px=0, cameras=("head_camera",), state=(Field(stream="joint_position"),),
        action=(Field(stream="joint_command"),),
    )  # fmt: skip
    view = build_view(dataset, "wide", spec)
    camera = dataset.episode("a").stream("head_camera")
    frames = view.images("head_camera")
    assert frames.shape[1:3] == camera.stream.shape[:2]
    assert camera.stream.shape[0] != camera.stream.shape[1]
    recorded = {camera.encoded(k) for k in range(len(camera))}
    assert {frames.encoded(row) for row in range(len(view))} <= recorded
    whole = zarr.open_array(root / "views" / "wide" / "images" / "head_camera", mode="r")[...]
    np.testing.assert_array_equal(frames.batch(range(len(view))), np.asarray(whole)[frames.frame_of_row])


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"image_px": 5}, "Expected image_px of 8 or more"), ({"image_px": 0, "crops": {"front": CROP}}, "without crops")],
)
def test_images_of_no_size_or_cut_without_one_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ViewSpec.model_validate(ARM.model_dump() | changed)


def test_images_are_resized_as_the_robot_will_resize_them(root: Path) -> None:
    view = build(root, ARM.model_copy(update={"image_px": 64, "cameras": ("front",)}))
    small = encode(resize_image(decode(jpeg(0, 2, 96)), 64), 92)
    assert view.images("front").encoded(0) == small
    assert (view.images("front")[0] == decode(small)).all()
    assert view.images("front").shape == (len(view), 64, 64, 3)


def test_statistics_are_of_all_rows(root: Path) -> None:
    view = build(root)
    for group, values in (("state", view.state), ("action", view.action)):
        got = view.statistics[group]
        assert got["mean"] == pytest.approx(values.astype(np.float64).mean(axis=0), rel=1e-5, abs=1e-6)
        assert got["q99"] == pytest.approx(np.quantile(values.astype(np.float64), 0.99, axis=0), rel=1e-6)
        assert got["min"].tolist() == values.min(axis=0).tolist()


def test_the_same_episodes_and_specification_give_the_same_bytes(root: Path, plant: Path, tmp_path: Path) -> None:
    other = shutil.copytree(plant, tmp_path / "other.zarr")
    assert content(build(root).directory) == content(build(other).directory)


def test_recording_order_does_not_matter(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    record(other, "b", arm_messages(2, steps=30), task="sort")
    record(other, "a", arm_messages(1))
    ours, theirs = build(root), build(other)
    assert [e.id for e in theirs.episodes] == ["a", "b"]
    assert (ours.state == theirs.state).all()


def test_a_current_view_is_not_built_again(root: Path) -> None:
    first = build(root)
    before = (first.directory / "zarr.json").stat().st_ino
    assert build(root).key == first.key
    assert (first.directory / "zarr.json").stat().st_ino == before


def test_a_new_episode_makes_a_view_stale_and_is_added_without_touching_the_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(root)
    record(root, "aa", arm_messages(5, steps=20))
    stale = View.open(Dataset.open(root), "train")
    assert "stale: 1 episodes came and 0 went" in stale.stale
    assert "lehrling view" in stale.stale
    assert stale.key == first.key
    aligned: list[str] = []

    def counted(dataset: Dataset, entry: EpisodeRecord, layout: Layout) -> Part:
        aligned.append(entry.id)
        return new_part(dataset, entry, layout)

    monkeypatch.setattr("lehrling.datasets.view_build.new_part", counted)
    refreshed = build(root)
    assert aligned == ["aa"]
    assert [e.id for e in refreshed.episodes] == ["a", "aa", "b"]
    assert refreshed.stale == ""
    assert content(refreshed.directory) == content(build(root, name="from-scratch").directory)


def test_a_damaged_view_is_not_copied_from(root: Path) -> None:
    view = build(root)
    good = content(view.directory)
    shard = view.directory / "images" / "front" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(DamageError):
        View(view.directory).images("front")[0]
    assert View(view.directory).verify() == ["images/front/c/0/0/0/0 has other content than when it was sealed"]
    assert content(build(root).directory) == good


@pytest.mark.parametrize("name", ["state/c/0/0", "images/front/c/0/0/0/0", "valid/zarr.json"])
def test_a_missing_file_is_named_and_never_read_as_zero(root: Path, name: str) -> None:
    view = build(root)
    (view.directory / name).unlink()
    with pytest.raises(DamageError, match=name):
        View.open(Dataset.open(root), "train")


def test_a_missing_chunk_is_refused_even_without_asking_the_inventory(root: Path) -> None:
    directory = build(root).directory
    (directory / "action" / "c" / "0" / "0").unlink()
    with pytest.raises(DamageError):
        _ = View(directory).action


def test_a_command_of_zero_is_stored_not_left_out(tmp_path: Path) -> None:
    root = tmp_path / "zero.zarr"
    record(root, "z", arm_messages(0, steps=20))
    spec = ARM.model_copy(update={"action": (Field(stream="tcp_command", select=("qx",), alignment="nearest"),)})
    view = build(root, spec)
    assert (view.action == 0).all()
    assert (view.directory / "action" / "c" / "0" / "0").is_file()


def test_a_purged_episode_leaves_with_the_view_and_stays_away(root: Path) -> None:
    directory = build(root).directory
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge("a")
    assert not directory.exists()
    assert [e.id for e in build(root).episodes] == ["b"]


def test_a_view_that_still_holds_a_purged_episode_is_refused(root: Path, tmp_path: Path) -> None:
    directory = build(root).directory
    aside = shutil.copytree(directory, tmp_path / "aside")
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge("a")
    shutil.copytree(aside, directory)
    with pytest.raises(InputError, match="holds episode 'a', which is purged"):
        View.open(Dataset.open(root), "train")
    assert [e.id for e in build(root).episodes] == ["b"]


def test_discarded_and_quarantined_episodes_leave_with_the_next_build(root: Path) -> None:
    build(root)
    with Dataset.open_for_writing(root) as dataset:
        dataset.discard("a", "wrong part")
    assert "0 episodes came and 1 went" in View.open(Dataset.open(root), "train").stale
    assert [e.id for e in build(root).episodes] == ["b"]
    with Dataset.open_for_writing(root) as dataset:
        dataset.quarantine("b", "torn")
    with pytest.raises(InputError, match="holds episode 'b', which is quarantined"):
        View.open(Dataset.open(root), "train")
    with pytest.raises(InputError, match="at least one sealed episode"):
        build(root)


def test_episodes_can_be_chosen_by_outcome_task_and_id(root: Path) -> None:
    def ids(**keep: object) -> list[str]:
        spec = ARM.model_copy(update={"episodes": EpisodeFilter.model_validate(keep)})
        return [episode.id for episode in build(root, spec, "some").episodes]

    assert ids(outcomes=["failure"]) == ["failed"]
    assert ids(tasks=["sort"]) == ["b"]
    assert ids(ids=["a"]) == ["a"]
    with pytest.raises(InputError, match="no episode 'zzz'"):
        ids(ids=["zzz"])


def test_contracts_do_not_mix(root: Path) -> None:
    arm = load_embodiment("arm6")
    camera = arm.contract.cameras[0].model_copy(update={"height": 64, "width": 64})
    contract = arm.contract.model_copy(update={"cameras": (camera, *arm.contract.cameras[1:])})
    other = arm.model_copy(update={"contract": contract})
    sent = [m for m in arm_messages(1) if "front" not in m.topic]
    record(root, "c", sent, other)
    with pytest.raises(
        ContractError, match=r"one contract, got .*cameras front\.height: 96 here, 64 there.*`contract`"
    ):
        build(root)
    first = Dataset.open(root).records["a"].contract_hash
    spec = ARM.model_copy(update={"episodes": EpisodeFilter(contract=first[:12])})
    assert [e.id for e in build(root, spec).episodes] == ["a", "b"]


def test_an_episode_without_a_complete_observation_is_skipped_and_named(root: Path) -> None:
    record(root, "blind", [m for m in arm_messages(4) if "wrist" not in m.topic])
    view = build(root)
    assert view.skipped == {"blind": "image/wrist never came, or not all of it"}
    assert [e.id for e in view.episodes] == ["a", "b"]
    assert view.stale == ""


def test_no_row_at_all_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "blind.zarr"
    record(root, "blind", [m for m in arm_messages(4) if "wrist" not in m.topic])
    with pytest.raises(InputError, match="no episode gives any; blind: image/wrist never came"):
        build(root)
    assert not (root / "views" / "train").exists()


def test_rows_of_a_frozen_camera_are_not_valid(tmp_path: Path) -> None:
    root = tmp_path / "frozen.zarr"
    record(root, "f", arm_messages(1, steps=40, frames=5))
    view = build(root)
    column = view.meta.sources.index("image/front")
    assert (view.valid == (view.age_ns[:, column] <= 500 * MS)).all()
    assert 0 < view.valid.sum() < len(view)
    rows = usable_rows(view, view.valid, 4)
    assert view.valid[chunk_indices(view, rows, 4).index].all()


def test_a_delta_action_is_the_change_since_the_row_before(root: Path) -> None:
    fields = (Field(stream="tcp_command", select=("x",), representation="delta"),)
    view = build(root, ARM.model_copy(update={"action": fields, "episodes": EpisodeFilter(ids=("a",))}))
    assert not view.valid[0]
    assert view.valid[1:].all()
    assert view.action[1:, 0].tolist() == [1.0] * (len(view) - 1)


def test_statistics_of_relative_actions_are_of_their_chunks(root: Path) -> None:
    spec = ViewSpec(
        rate_hz=20,
        image_px=96,
        state=(Field(stream="tcp_pose", select=("x", "y", "z")),),
        action=(
            Field(
                stream="tcp_command",
                select=("x", "y", "z"),
                representation="chunk_relative",
                reference="tcp_pose",
            ),
        ),
        statistics_horizon=4,
    )
    view = build(root, spec)
    chunks = chunk_indices(view, np.arange(len(view)), 4)
    relative = (view.action[chunks.index] - view.state[:, None])[~chunks.is_pad]
    chunk = view.codec.encode(view.action[chunks.index], view.state)
    assert (chunk[~chunks.is_pad] == relative).all()
    assert view.codec.decode(chunk, view.state) == pytest.approx(view.action[chunks.index], abs=1e-4)
    assert view.statistics["action_chunk"]["max"] == pytest.approx(relative.max(axis=0))
    assert view.statistics["action"]["max"].tolist() == view.action.max(axis=0).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ("side",)}, "no stream 'side'"),
        ({"cameras": ("tcp_pose",)}, "colour camera of the contract, got 'tcp_pose'"),
        ({"state": (Field(stream="front"),)}, "Expected a numeric stream, got 'front'"),
        ({"state": (Field(stream="tcp_command"),)}, "got the action 'tcp_command'"),
        ({"state": (Field(stream="tcp_pose", select=("roll",)),)}, "got 'roll'"),
        ({"action": (Field(stream="tcp_command", alignment="linear"),)}, "without a quaternion"),
        (
            {"action": (Field(stream="tcp_command", alignment="slerp", select=("x", "qw")),)},
            "whole quaternion for slerp",
        ),
        ({"action": (Field(stream="gripper_command", alignment="slerp"),)}, "whole quaternion for slerp"),
    ],
)
def test_a_specification_that_does_not_fit_the_contract_is_refused(
    plant: Path, changes: dict[str, object], message: str
) -> None:
    spec = ViewSpec.model_validate(ARM.model_copy(update=changes).model_dump())
    with pytest.raises(InputError, match=message):
        build(plant, spec, "never")


def test_only_one_process_builds_a_view_at_a_time(root: Path) -> None:
    with _claimed(root / "views" / "train"), pytest.raises(LockedError, match="built by another process"):
        build(root)


def test_an_interrupted_swap_is_undone_by_the_next_build(root: Path) -> None:
    view = build(root)
    good = content(view.directory)
    view.directory.rename(view.directory.with_name(".train.replaced"))
    (view.directory.with_name(".train.partial") / "state").mkdir(parents=True)
    assert content(build(root).directory) == good
    left = {path.name for path in view.directory.parent.iterdir()}
    assert left == {"zarr.json", "train", ".train.lock"}


def test_progress_reaches_its_end(root: Path) -> None:
    steps: list[tuple[int, int]] = []
    build_view(Dataset.open(root), "train", ARM, lambda done, total: steps.append((done, total)))
    assert steps == [(n, 6) for n in range(1, 7)]


def test_a_name_that_is_a_path_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match="Expected an id"):
        build(root, name="../elsewhere")
    with pytest.raises(InputError, match="There is no view"):
        View.open(Dataset.open(root), "none")


def test_a_view_of_another_format_is_refused(root: Path) -> None:
    path = build(root).directory / "zarr.json"
    data = json.loads(path.read_text())
    data["attributes"]["lehrling_view"] = 99
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"view format 1 in .*, got 99"):
        View.open(Dataset.open(root), "train")


def first_pixels(view: View) -> tuple[float, int]:
    return float(view.state[1, 0]), int(view.images("front")[1].sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_view_opened_here_reads_the_same_in_a_worker(root: Path, method: str) -> None:
    view = build(root)
    expected = first_pixels(view)
    if method == "spawn":
        copy: View = pickle.loads(pickle.dumps(view))
        assert "state" not in copy.__dict__
        assert first_pixels(copy) == expected
        return
    with mp.get_context("fork").Pool(1) as pool:
        assert pool.apply(first_pixels, (view,)) == expected


def test_a_humanoid_whose_joints_come_in_parts_has_whole_rows(tmp_path: Path) -> None:
    root, humanoid = tmp_path / "humanoid.zarr", load_embodiment("humanoid")
    record(root, "walk", humanoid_messages(), humanoid)
    spec = ViewSpec(
        rate_hz=30,
        image_px=64,
        cameras=("head_camera",),
        state=(Field(stream="joint_position", max_age_ms=30), Field(stream="base_pose")),
        action=(Field(stream="joint_command"),),
        fit="pad",
    )
    view = build(root, spec)
    episode = Dataset.open(root).episode("walk")
    joints = episode.stream("joint_position")
    assert view.state.shape[1] == 43 + 7
    assert view.action.shape[1] == 43
    assert not joints.mask.all(axis=1).any()
    assert not np.isnan(view.state).any()
    hands = np.flatnonzero(joints.mask[:, 42])
    assert view.row_stamp_ns[0] >= joints.received_ns[hands[0]] == 54 * MS
    for row in range(len(view)):
        t = view.row_stamp_ns[row]
        for column in (0, 19, 20, 30, 31, 42):
            known = np.flatnonzero(joints.mask[:, column] & (joints.received_ns <= t))
            newest = known[np.argmax(joints.stamp_ns[known])]
            assert view.state[row, column] == np.float32(joints.value[newest, column])
    assert view.images("head_camera")[0][:8].max() <= 8
