"""Frames: what openpi's encoder makes is read, and nothing else is."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lehrling.deploy.wire import WireError, pack, unpack


def array(data: Any = b"\0" * 8, dtype: Any = "<f4", shape: Any = (2,)) -> bytes:
    return bytes(msgpack.packb({"a": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}}))


@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from(["<f4", "<f8", "|u1", "<i8", "|b1", "<u2", "<f2"]), arrays.array_shapes(min_dims=0, max_dims=4)
    )
)
def test_an_array_comes_back_as_it_was(value: np.ndarray[Any, Any]) -> None:
    found = unpack(pack({"a": value, "n": {"t": [1, "x", None]}}))
    assert found["a"].dtype == value.dtype
    assert found["a"].shape == value.shape
    assert found["a"].tobytes() == value.tobytes()
    assert found["n"] == {"t": [1, "x", None]}


def test_scalars_and_arrays_that_are_not_contiguous_come_back() -> None:
    grid = np.arange(12, dtype="<f4").reshape(3, 4)
    found = unpack(pack({"s": np.float32(1.5), "b": np.bool_(True), "t": grid.T}))
    assert (found["s"], found["s"].dtype, found["b"]) == (1.5, np.float32, True)
    np.testing.assert_array_equal(found["t"], grid.T)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ("text", "got text"),
        (array(dtype="|O"), "dtype '|O'"),
        (array(dtype="|V8"), "dtype '|V8'"),
        (array(dtype="<c8"), "dtype"),
        (array(dtype=b"|O8"), "dtype"),
        (array(dtype="<f4,<f4"), "dtype"),
        (array(dtype="<M8[ns]"), "dtype"),
        (array(shape=(3,)), "bytes of an array"),
        (array(shape=(-2,)), "bytes of an array"),
        (array(shape=(2.0,)), "bytes of an array"),
        (array(shape=(True, 2)), "bytes of an array"),
        (array(shape=(1,) * 9), "at most 8"),
        (array(shape=(1 << 40, 1 << 40)), "bytes of an array"),
        (array(data="text"), "array's bytes"),
        (array(data=b"", dtype="<U0", shape=(1 << 33,)), "dtype '<U0'"),
        (array(data=b"", dtype="<U00", shape=(1 << 61,)), "dtype '<U00'"),
        (array() + b"\0", "ExtraData"),
        (array()[:-1], "msgpack"),
        (b"\xc1", "msgpack"),
        (b"", "msgpack"),
        (b"\x91" * 5000 + b"\0", "msgpack"),
        (msgpack.packb([1, 2]), "a map"),
        (msgpack.packb({1: 2}), "msgpack"),
        (msgpack.packb({b"bytes": 2}), "keys are text"),
        (msgpack.packb({str(k): 0 for k in range(257)}), "msgpack"),
        (msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "msgpack"),
        (b"\xdf\xff\xff\xff\xff", "msgpack"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "msgpack"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "msgpack"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}}), "Expected a <f4"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "Expected a |u1"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}}), "dtype"),
    ],
)
def test_what_is_no_frame_is_refused_by_what_it_is(frame: bytes, problem: str) -> None:
    with pytest.raises(WireError) as refused:
        unpack(frame)
    assert problem in str(refused.value)


def test_a_large_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="at most 1000 bytes, got 1001"):
        unpack(b"\0" * 1001, 1000)


@pytest.mark.parametrize("value", [np.array([object()]), np.zeros(2, "c8"), object(), {1, 2}, 1 << 70])
def test_what_has_no_place_in_a_frame_is_not_sent(value: object) -> None:
    with pytest.raises(WireError):
        pack({"a": value})


def damaged(count: int, seed: int) -> None:
    """Read frames with bytes changed, cut or repeated: each is read or refused, and memory stays."""
    draw = random.Random(seed)
    whole = pack(
        {"observation/front": np.zeros((4, 4, 3), np.uint8), "observation/state": np.ones(3, np.float32), "prompt": "p"}
    )
    tracemalloc.start()
    for _ in range(count):
        frame = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            frame[draw.randrange(len(frame))] = draw.randrange(256)
        start = draw.randrange(4)
        part = bytes(frame[start : draw.randrange(start, len(frame)) if draw.random() < 0.3 else len(frame)])
        try:
            unpack(part)
        except WireError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_ten_thousand_damaged_frames_are_read_or_refused() -> None:
    began = time.monotonic()
    damaged(10_000, 1)
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_hundred_thousand_damaged_frames_are_read_or_refused() -> None:
    damaged(100_000, 2)
