"""The short cut of checking never answers otherwise than the long way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.message_check import Fit, MessageCheck
from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import MessageError
from lehrling.datasets.message_layout import layout_of
from lehrling.datasets.message_types import standard

HUMANOID = load_embodiment("humanoid")
NAMES = [joint.name for joint in HUMANOID.contract.joints]
BODY, POSE, TWIST, WRENCH = "/body/joint_states", "/base_pose", "/cmd_vel", "/left_wrench"
START = 10**18
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
few = st.one_of(numbers, st.just(0.0), st.just(1.5))


@dataclass(frozen=True)
class Message:
    cdr: bytes
    received_ns: int


def check() -> MessageCheck:
    return MessageCheck(HUMANOID, BoundTopics(HUMANOID), standard())


def verdict(checker: MessageCheck, cdr: bytes, topic: str, tick: int) -> Fit | str:
    try:
        return checker.fit(Message(cdr, START + tick), topic)
    except MessageError as error:
        return f"{error.cause}: {error}"


def body(names: list[str], position: list[float], velocity: list[float], effort: list[float], frame: str = "") -> bytes:
    return messages.joint_state(names, position, velocity, effort, START, frame)


def twist(values: list[float], frame: str) -> bytes:
    make = standard().make
    vectors = [make("geometry_msgs/msg/Vector3")(*map(float, part)) for part in (values[:3], values[3:])]
    header = make("std_msgs/msg/Header")(stamp=make("builtin_interfaces/msg/Time")(1, 2), frame_id=frame)
    inner = make("geometry_msgs/msg/Twist")(*vectors)
    return standard().encode(make("geometry_msgs/msg/TwistStamped")(header, inner))


@given(
    joints=st.lists(st.sampled_from([*NAMES[:5], "stranger"]), max_size=4, unique=True),
    values=st.lists(few, min_size=12, max_size=12),
    has=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    frame=st.sampled_from(["", "a", "base", "äö"]),
)
def test_a_joint_state_gets_the_same_answer_either_way(
    joints: list[str], values: list[float], has: tuple[bool, bool, bool], frame: str
) -> None:
    position, velocity, effort = (values[4 * k : 4 * k + len(joints)] if has[k] else [] for k in range(3))
    cdr = body(joints, position, velocity, effort, frame)
    taught = check()
    for like in (body(joints, [0.5] * len(joints), [0.5] * len(joints), [], frame), body(NAMES[:4], [0.1] * 4, [], [])):
        verdict(taught, like, BODY, 0)
    assert verdict(taught, cdr, BODY, 1) == verdict(check(), cdr, BODY, 1)


@given(values=st.lists(few, min_size=7, max_size=7), frame=st.sampled_from(["", "map", "odom"]))
def test_a_pose_and_a_twist_get_the_same_answer_either_way(values: list[float], frame: str) -> None:
    taught = check()
    verdict(taught, messages.pose_stamped([0, 0, 0], [0, 0, 0, 1], START, "map"), POSE, 0)
    verdict(taught, twist([0] * 6, "map"), TWIST, 0)
    pose = messages.pose_stamped(values[:3], values[3:], START, frame)
    assert verdict(taught, pose, POSE, 1) == verdict(check(), pose, POSE, 1)
    moving = twist(values[:6], frame)
    assert verdict(taught, moving, TWIST, 1) == verdict(check(), moving, TWIST, 1)


@given(data=st.data())
def test_any_changed_byte_gets_the_same_answer_either_way(data: st.DataObject) -> None:
    good = body(NAMES[:3], [1.0, 2.0, 3.0], [0.0] * 3, [0.0] * 3, "base")
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    taught = check()
    verdict(taught, good, BODY, 0)
    assert taught._known, "the short cut is not taken, so that this proves nothing"
    fresh = check()
    verdict(fresh, good, BODY, 0)
    fresh._known.clear()
    assert verdict(taught, bytes(bad), BODY, 1) == verdict(fresh, bytes(bad), BODY, 1)


def test_the_short_cut_is_taken_for_floating_point_numbers_only() -> None:
    fields, doubles = frozenset({"position"}), frozenset({"float64"})
    state, kind = body(NAMES, [0.0] * 43, [], []), "sensor_msgs/msg/JointState"
    assert layout_of(state, kind, fields, doubles) is not None
    assert layout_of(state, kind, fields, frozenset({"float64", "int64"})) is None
    image = messages.compressed_image(b"\xff\xd8", START, "c")
    assert layout_of(image, "sensor_msgs/msg/CompressedImage", fields, doubles) is None
    assert layout_of(b"\x00\x00" + bytes(100), "geometry_msgs/msg/PoseStamped", fields, doubles) is None


@pytest.mark.parametrize(("value", "held"), [(3.4e38, True), (-3.4e38, True), (3.5e38, False), (-1e300, False)])
def test_the_short_cut_keeps_the_range_of_the_narrowest_dtype(value: float, held: bool) -> None:
    dtypes = frozenset({"float64", "float32"})
    known = layout_of(body(["a"], [0.0], [], []), "sensor_msgs/msg/JointState", frozenset({"position"}), dtypes)
    assert known is not None
    assert known.fits(body(["a"], [value], [], [])) is held


@pytest.mark.parametrize("effort", [float("nan"), float("inf")])
def test_numbers_that_feed_no_stream_may_be_anything(effort: float) -> None:
    taught = check()
    for tick in range(3):
        cdr = body(NAMES, [0.0] * 43, [0.0] * 43, [effort] * 43)
        assert isinstance(verdict(taught, cdr, BODY, tick), Fit)


def test_a_short_cut_still_sees_clocks_that_jump_back() -> None:
    taught = check()
    for tick in range(3):
        verdict(taught, messages.joint_state(NAMES, np.zeros(43), [], [], START + tick), BODY, tick)
    told = verdict(taught, messages.joint_state(NAMES, np.zeros(43), [], [], START - 10**9), BODY, 4)
    assert str(told).startswith("stamps go backwards")


@pytest.mark.parametrize(("after_s", "fits"), [(0.02, True), (3599, True), (3602, False)])
def test_stamps_may_run_faster_than_receipts_but_gain_no_hour_between_two_messages(after_s: float, fits: bool) -> None:
    first = messages.joint_state(NAMES, np.zeros(43), [], [], START)
    checker = check()
    verdict(checker, first, BODY, 0)
    message = messages.joint_state(NAMES, np.zeros(43), [], [], START + round(after_s * 1e9))
    assert isinstance(verdict(checker, message, BODY, 10**9), Fit) is fits


def test_stamps_may_be_hours_later_where_receipts_are() -> None:
    checker = check()
    checker.fit(Message(messages.joint_state(NAMES, np.zeros(43), [], [], START), START), BODY)
    late = Message(messages.joint_state(NAMES, np.zeros(43), [], [], START + 7200 * 10**9), START + 7000 * 10**9)
    assert checker.fit(late, BODY).stamp_ns == START + 7200 * 10**9
