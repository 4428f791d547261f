from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import InputError
from lehrling.datasets.representation import ActionCodec, RelativePart, multiply, rotate

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSE = tuple(range(7))
QUARTER = np.sqrt(0.5)


def poses(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    pose = rng.normal(size=(*shape, 7))
    pose[..., 3:] /= np.linalg.norm(pose[..., 3:], axis=-1, keepdims=True)
    pose[..., 3:] *= np.where(pose[..., 6:] < 0, -1, 1)
    return pose.astype(np.float32)


def test_a_chunk_is_relative_to_the_state_at_its_start() -> None:
    codec = ActionCodec((RelativePart("chunk_relative", (0, 1), (2, 0)),))
    chunk = np.array([[[1, 2, 9], [3, 4, 9]]], np.float32)
    got = codec.encode(chunk, np.array([[10, 20, 30]], np.float32))
    assert got.tolist() == [[[-29, -8, 9], [-27, -6, 9]]]
    assert codec.decode(got, np.array([[10, 20, 30]], np.float32)).tolist() == chunk.tolist()


def test_a_pose_is_seen_from_the_end_effector() -> None:
    codec = ActionCodec((RelativePart("end_effector", POSE, POSE),))
    state = np.array([1, 0, 0, 0, 0, QUARTER, QUARTER], np.float32)
    chunk = np.array([[1, 2, 0, 0, 0, 1, 0]], np.float32)
    assert codec.encode(chunk, state)[0] == pytest.approx([2, 0, 0, 0, 0, QUARTER, QUARTER], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_end_effector_chunks_can_be_undone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codec = ActionCodec((RelativePart("end_effector", POSE, POSE),))
    chunk, state = poses(rng, 3, 5), poses(rng, 3)
    back = codec.decode(codec.encode(chunk, state), state)
    np.testing.assert_allclose(back[..., :3], chunk[..., :3], atol=1e-5)
    same = np.abs(np.sum(back[..., 3:] * chunk[..., 3:], axis=-1))
    np.testing.assert_allclose(same, 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rotating_twice_is_rotating_by_the_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second, vector = poses(rng)[3:] * 1.0, poses(rng)[3:] * 1.0, rng.normal(size=3)
    a, b = first.astype(np.float64), second.astype(np.float64)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    np.testing.assert_allclose(rotate(multiply(a, b), vector), rotate(a, rotate(b, vector)), atol=1e-12)


def test_without_relative_parts_nothing_changes() -> None:
    chunk = np.ones((2, 3), np.float32)
    assert ActionCodec().encode(chunk, np.zeros(1, np.float32)).tolist() == chunk.tolist()


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(InputError, match="got 1 and 2"):
        RelativePart("chunk_relative", (0, 1), (0,))
    with pytest.raises(InputError, match="7 for end_effector"):
        RelativePart("end_effector", (0, 1), (0, 1))
