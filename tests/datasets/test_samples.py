from __future__ import annotations

import multiprocessing as mp
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from view_robots import arm_messages, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import ContractError, DamageError, InputError
from lehrling.datasets.loader import Loader
from lehrling.datasets.mixture import MixedReader, Mixture
from lehrling.datasets.sampler import EpisodeSampler
from lehrling.datasets.samples import SampleReader, Samples
from lehrling.datasets.view import Field, View, ViewSpec, build_view
from lehrling.datasets.view_images import shard_path

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ViewSpec(
    rate_hz=20,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position"),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")), Field(stream="gripper_command")),
)
CHUNK = 6


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    record(root, "a", arm_messages(1))
    record(root, "b", arm_messages(2, steps=30), task="sort")
    return build_view(Dataset.open(root), "policy", SPEC)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> View:
    root = tmp_path_factory.mktemp("other") / "other.zarr"
    record(root, "c", arm_messages(3, steps=25))
    return build_view(Dataset.open(root), "policy", SPEC)


def same(a: Samples, b: Samples) -> bool:
    """Whether two batches are equal to the last bit."""
    arrays = (("state", a.state, b.state), ("action", a.action, b.action), ("is_pad", a.is_pad, b.is_pad),
              ("row", a.row, b.row), ("source", a.source, b.source))  # fmt: skip
    for _, ours, theirs in arrays:
        np.testing.assert_array_equal(ours, theirs)
    for camera, pixels in a.images.items():
        np.testing.assert_array_equal(pixels, b.images[camera])
    return a.instruction == b.instruction


# --- samples ----------------------------------------------------------------------------------------------------------------


def test_samples_are_what_zarr_python_reads_bit_for_bit(view: View) -> None:
    reader, group = SampleReader(view, CHUNK), zarr.open_group(view.directory, mode="r")
    batch = reader.batch(reader.rows)
    state, action, valid = (np.asarray(group[name]) for name in ("state", "action", "valid"))
    frame = {camera: np.asarray(group[f"frame_of_row/{camera}"]) for camera in SPEC.cameras}
    pixels = {camera: np.asarray(group[f"images/{camera}"]) for camera in SPEC.cameras}
    for place, row in enumerate(reader.rows.tolist()):
        episode = next(e for e in view.episodes if e.start <= row < e.stop)
        np.testing.assert_array_equal(batch.state[place], state[row])
        for step in range(CHUNK):
            inside = row + step < episode.stop
            assert batch.is_pad[place, step] == (not inside)
            if inside:
                assert valid[row + step]
                np.testing.assert_array_equal(batch.action[place, step], action[row + step])
        for camera in SPEC.cameras:
            np.testing.assert_array_equal(batch.images[camera][place], pixels[camera][frame[camera][row]])
        assert batch.instruction[place] == episode.instruction


def test_a_history_ends_at_its_row_and_repeats_the_first_of_its_episode(view: View) -> None:
    reader, plain = SampleReader(view, CHUNK, history=3), SampleReader(view, CHUNK)
    begin = view.episodes[1].start
    batch = reader.batch([begin, begin + 1, begin + 5])
    shown = [[begin] * 3, [begin, begin, begin + 1], [begin + 3, begin + 4, begin + 5]]
    assert batch.state.shape == (3, 3, view.state.shape[1])
    for place, rows in enumerate(shown):
        np.testing.assert_array_equal(batch.state[place], view.state[rows])
        np.testing.assert_array_equal(batch.images["front"][place], plain.batch(rows).images["front"])


def test_padded_chunks_can_be_left_out_and_cameras_chosen(view: View) -> None:
    reader = SampleReader(view, CHUNK, cameras=("wrist",), drop_padded=True)
    batch = reader.batch(reader.rows)
    assert not batch.is_pad.any()
    assert list(batch.images) == ["wrist"]
    assert len(SampleReader(view, CHUNK).rows) - len(reader.rows) == (CHUNK - 1) * len(view.episodes)


def test_images_are_decoded_into_the_memory_that_is_given(view: View) -> None:
    given: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []

    def memory(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        given.append(np.zeros(shape, np.uint8))
        return given[-1]

    reader = SampleReader(view, CHUNK)
    batch = reader.batch(reader.rows[:4], memory)
    assert [np.shares_memory(batch.images[c], part) for c, part in zip(SPEC.cameras, given, strict=True)] == [
        True,
        True,
    ]
    assert same(batch, reader.batch(reader.rows[:4]))


@pytest.mark.parametrize(
    ("chunk", "history", "words"),
    [(0, 1, "at least 1, got 0 and 1"), (1, 0, "got 1 and 0")],
)
def test_samples_that_cannot_be_are_refused(view: View, chunk: int, history: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SampleReader(view, chunk, history=history)
    with pytest.raises(InputError, match="Expected a camera of the view"):
        SampleReader(view, 1, cameras=("rear",))
    with pytest.raises(InputError, match="make the chunk shorter"):
        SampleReader(view, 500, drop_padded=True)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_reader_reads_the_same_in_another_process(view: View, method: str) -> None:
    reader = SampleReader(view, CHUNK)
    with ProcessPoolExecutor(1, mp.get_context(method)) as pool:
        found = pool.submit(reader.batch, reader.rows[:3]).result(timeout=120)
    assert same(found, reader.batch(reader.rows[:3]))
    assert same(pickle.loads(pickle.dumps(reader)).batch(reader.rows[:3]), found)


# --- loader -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_threads_gives_the_same_batches_in_the_same_order(view: View, workers: int) -> None:
    reader = SampleReader(view, CHUNK)
    with (
        Loader(reader.batch, EpisodeSampler(reader.rows, 5, seed=2), workers=0) as plain,
        Loader(reader.batch, EpisodeSampler(reader.rows, 5, seed=2), workers=workers) as threaded,
    ):
        for _ in range(25):
            assert same(next(plain), next(threaded))
            assert plain.state_dict() == threaded.state_dict()


def test_a_loader_resumes_with_the_very_next_batch_although_it_read_ahead(view: View) -> None:
    reader = SampleReader(view, CHUNK)
    loader = Loader(reader.batch, EpisodeSampler(reader.rows, 4, seed=1), workers=2)
    for _ in range(7):
        next(loader)
    state, expected = loader.state_dict(), [next(loader) for _ in range(6)]
    loader.close()
    again = Loader(reader.batch, EpisodeSampler(reader.rows, 4, seed=1), workers=2).load_state_dict(state)
    assert all(same(next(again), batch) for batch in expected)
    again.load_state_dict(state)
    assert same(next(again), expected[0])
    again.close()
    assert same(next(again), expected[1])
    again.close()


def test_an_error_comes_in_the_place_of_its_batch(view: View) -> None:
    rows = iter([np.array([1]), np.array([2]), np.array([10**6]), np.array([3])])

    class Sampler:
        def __next__(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
            return next(rows, np.array([4]))

        def state_dict(self) -> int:
            return 0

        def load_state_dict(self, state: int) -> None:
            pass

    reader = SampleReader(view, CHUNK)
    with Loader(reader.batch, Sampler(), workers=2) as loader:
        assert [next(loader).row.tolist() for _ in range(2)] == [[1], [2]]
        with pytest.raises(InputError, match="got row 1000000"):
            next(loader)
    with pytest.raises(InputError, match="0 or more workers"):
        Loader(reader.batch, Sampler(), workers=-1)


# --- shuffling --------------------------------------------------------------------------------------------------------------


def test_episodes_at_once_bound_how_many_episodes_are_read_at_a_time() -> None:
    episode = np.repeat(np.arange(12), 10)
    sampler = EpisodeSampler(np.arange(120), 1, seed=4, episode_of_row=episode, episodes_at_once=3)
    for epoch in (0, 1):
        order = sampler.permutation(epoch)
        assert sorted(order.tolist()) == list(range(120))
        groups = [set(episode[order[start : start + 30]].tolist()) for start in range(0, 120, 30)]
        assert [len(group) for group in groups] == [3, 3, 3, 3]
        assert (np.diff(episode[order]) != 0).sum() > 60
    assert sampler.permutation(0).tolist() != sampler.permutation(1).tolist()
    again = EpisodeSampler(np.arange(120), 1, seed=4, episode_of_row=episode, episodes_at_once=3)
    assert again.permutation(5).tolist() == sampler.permutation(5).tolist()
    with pytest.raises(InputError, match="episode_of_row"):
        EpisodeSampler(np.arange(120), 1, episodes_at_once=3)


# --- mixtures ---------------------------------------------------------------------------------------------------------------


def test_a_mixture_draws_by_weight_and_every_row_of_a_source_once_before_any_again() -> None:
    mixture = Mixture([np.arange(40), np.arange(100, 110)], [3.0, 1.0], 16, seed=5)
    drawn = [next(mixture) for _ in range(100)]
    source = np.concatenate([draw.source for draw in drawn])
    row = np.concatenate([draw.row for draw in drawn])
    assert (source == 1).mean() == pytest.approx(0.25, abs=0.03)
    for number, size in ((0, 40), (1, 10)):
        of_it = row[source == number]
        for start in range(0, len(of_it) - size, size):
            assert len(set(of_it[start : start + size].tolist())) == size
    assert row[source == 1].min() == 100


def test_a_mixture_resumes_exactly_and_refuses_the_state_of_another() -> None:
    rows = [np.arange(7), np.arange(5)]
    mixture = Mixture(rows, [1, 1], 4, seed=5)
    for _ in range(9):
        next(mixture)
    state = mixture.state_dict()
    expected = [next(mixture) for _ in range(9)]
    again = Mixture(rows, [1, 1], 4, seed=5).load_state_dict(state)
    for draw in expected:
        ours = next(again)
        np.testing.assert_array_equal(ours.source, draw.source)
        np.testing.assert_array_equal(ours.row, draw.row)
    with pytest.raises(InputError, match="resume with the same views"):
        Mixture([np.arange(7), np.arange(6)], [1, 1], 4, seed=5).load_state_dict(state)


def test_mixed_samples_are_those_of_their_views_in_the_order_drawn(view: View, other: View) -> None:
    readers = [SampleReader(view, CHUNK), SampleReader(other, CHUNK)]
    mixed = MixedReader(readers)
    draw = next(Mixture(mixed.rows, [1, 2], 12, seed=3))
    assert set(draw.source.tolist()) == {0, 1}
    batch = mixed.batch(draw)
    for place, (source, row) in enumerate(zip(draw.source.tolist(), draw.row.tolist(), strict=True)):
        one = readers[source].batch([row])
        np.testing.assert_array_equal(batch.state[place], one.state[0])
        np.testing.assert_array_equal(batch.action[place], one.action[0])
        np.testing.assert_array_equal(batch.images["wrist"][place], one.images["wrist"][0])
        assert batch.instruction[place] == one.instruction[0]
    with Loader(mixed.batch, Mixture(mixed.rows, [1, 2], 12, seed=3)) as loader:
        assert same(next(loader), batch)


def test_views_that_do_not_look_alike_are_not_mixed(view: View, other: View) -> None:
    dataset = Dataset.open(other.directory.parents[1])
    small = build_view(dataset, "small", SPEC.model_copy(update={"image_px": 32}))
    with pytest.raises(ContractError, match="cameras differ"):
        MixedReader([SampleReader(view, CHUNK), SampleReader(small, CHUNK)])
    with pytest.raises(InputError, match="at least one view"):
        MixedReader([])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="one weight above 0"):
        Mixture([np.arange(3), np.arange(4)], weights, 2)
    with pytest.raises(InputError, match="Expected sources with rows"):
        Mixture([np.arange(3), np.arange(0)], [1, 1], 2)


def test_a_damaged_image_stops_the_loader_with_its_place(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    record(root, "a", arm_messages(1))
    view = build_view(Dataset.open(root), "policy", SPEC)
    path = shard_path(view.directory / "images" / "front", 0)
    content = bytearray(path.read_bytes())
    content[:2000] = bytes(2000)
    path.write_bytes(content)
    reader = SampleReader(view, CHUNK)
    loader = Loader(reader.batch, EpisodeSampler(reader.rows, len(reader.rows)), workers=2)
    with pytest.raises(DamageError, match="Expected a JPEG for frame 0"):
        next(loader)
    loader.close()
