"""What ROS 2 publishers send between start and save is in the sealed episode, over real DDS, to the byte."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simplejpeg
from recordings import jpeg
from ros_publishers import own_domain
from ros_rig import (
    JOINTS,
    MAKE,
    STATE,
    TEXT,
    TOPICS,
    Rig,
    depth,
    distances,
    front,
    pixels,
    plan,
    pose,
    recording_rig,
    rig,
    side,
    state,
    text,
)

from lehrling.collection.capture_group import CaptureOptions
from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.episode import Episode, EpisodeStream
from lehrling.datasets.errors import InputError
from lehrling.datasets.pictures import JPEG_QUALITY

pytest.importorskip("rclpy")
NAMESPACE = "cell_3/left"
DESCRIPTION = "<robot name='rig'/>"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start one recorder with two capture processes, and publishers of every kind, under a namespace."""
    own_domain()
    root = tmp_path_factory.mktemp("rig") / "d.zarr"
    with recording_rig(root, rig(NAMESPACE), CaptureOptions(processes=2)) as made:
        made.open("description", latched=True)
        made.send("description", text(DESCRIPTION))
        made.open("joints", "command", "plan", "side", "depth")
        made.open("pose", "front", reliable=False)
        made.wake()
        yield made


def sent(count: int) -> dict[str, list[bytes]]:
    return {name: [make(number) for number in range(count)] for name, make in MAKE.items()}


def stamps(name: str, cdrs: list[bytes]) -> list[int]:
    return [messages.stamp_of(messages.decode(cdr, TOPICS[name][1])) or 0 for cdr in cdrs]


def check_clocks(stream: EpisodeStream, began_ns: int, ended_ns: int) -> None:
    """Every row was received after it was published, in order, by three clocks that agree."""
    assert (np.diff(stream.received_ns) >= 0).all()
    assert (stream.received_ns >= began_ns).all()
    assert (stream.received_ns <= ended_ns).all()
    assert (stream.publish_ns >= stream.stamp_ns).all()
    assert (stream.publish_ns <= stream.received_ns).all()
    assert (np.diff(stream.monotonic_ns) >= 0).all()
    assert (np.diff(stream.sequence) == 1).all()


def test_everything_published_between_start_and_save_is_in_the_episode(robot: Rig) -> None:
    began_ns, messages_sent = time.time_ns(), sent(12)

    def act() -> None:
        for name, cdrs in messages_sent.items():
            robot.send(name, *cdrs)

    for name, make in MAKE.items():
        robot.send(name, make(99))
    time.sleep(0.2)
    episode = robot.episode(act)
    for name, cdrs in messages_sent.items():
        stream = episode.stream("position" if name == "joints" else name)
        assert len(stream) == 12, name
        if name != "plan":
            assert stream.stamp_ns.tolist() == stamps(name, cdrs)
            check_clocks(stream, began_ns, time.time_ns())
    rows = [[number + k / 8 for k in range(3)] for number in range(12)]
    assert episode.stream("position").value.tolist() == rows
    assert episode.stream("command").value.tolist() == rows
    assert episode.stream("velocity").value.tolist() == [[-number] * 3 for number in range(12)]
    assert episode.stream("pose").value[:, 0].tolist() == list(range(12))
    plans = [np.frombuffer(episode.stream("plan").ragged(number)).tolist() for number in range(12)]
    assert plans == [list(range(number)) for number in range(12)]
    for number in range(12):
        assert episode.stream("front").encoded(number) == jpeg(number)
        made = simplejpeg.encode_jpeg(pixels(number), quality=JPEG_QUALITY, colorsubsampling="444")
        assert episode.stream("side").encoded(number) == made
        np.testing.assert_array_equal(episode.stream("depth").frame(number), distances(number))
    found = episode.record
    assert (found.outcome, found.stop_cause, found.losses) == ("success", "operator", ())
    assert set(found.facts["lost_queue"].values()) == {0}
    assert set(found.facts["lost_middleware"].values()) == {0}
    assert found.facts["doctor"]["verdict"] in ("ok", "warn", "fail")
    assert found.timing["position"].dropped == 0


def test_a_latched_message_is_in_every_episode_from_its_beginning(robot: Rig) -> None:
    before_ns = time.time_ns()
    episodes = [robot.episode(lambda: robot.send("joints", state(1))) for _ in range(2)]
    for episode in episodes:
        stream = episode.stream("description")
        assert [messages.decode(stream.ragged(k), TEXT).data for k in range(len(stream))] == [DESCRIPTION]
        assert stream.received_ns[0] > before_ns
        assert stream.publish_ns[0] < before_ns
        assert episode.record.duration_s < 30
        assert "string data" in stream.attributes["definitions"][TEXT]  # type: ignore[index]


def test_a_latched_message_that_comes_while_recording_is_there_once_though_it_came_late(robot: Rig) -> None:
    """The subscription was made before anyone published, so it asked for nothing that is latched."""
    topic, msgtype = TOPICS["odd"]

    def act() -> None:
        robot.publishers.open("late", f"/{NAMESPACE}{topic}", msgtype, latched=True)
        robot.send("late", pose(5), pose(6))
        robot.publishers.wait("late")
        time.sleep(1.2)
        robot.send("late", pose(7))

    episode = robot.episode(act)
    robot.publishers.close("late")
    values = episode.stream("odd").value[:, 0].tolist()
    assert values[-2:] == [6, 7], values
    assert len(set(values)) == len(values), values
    after = robot.episode(lambda: None)
    assert after.stream("odd").value[:, 0].tolist() == [7]


def test_a_publisher_that_comes_late_is_heard_and_two_on_a_topic_are_counted_each(robot: Rig) -> None:
    def act() -> None:
        robot.send("command", *(state(k) for k in range(5)))
        robot.open("command#2")
        for k in range(5):
            robot.send("command", state(10 + k))
            robot.send("command#2", state(20 + k))

    episode = robot.episode(act)
    robot.publishers.close("command#2")
    stream = episode.stream("command")
    assert sorted(stream.value[:, 0].tolist()) == [*range(5), *range(10, 15), *range(20, 25)]
    assert stream.sequence.tolist()[:5] == list(range(stream.sequence[0], stream.sequence[0] + 5))
    assert (stream.sequence[6:] == -1).all()
    assert episode.record.timing["command"].dropped == -1
    assert episode.record.facts["lost_middleware"]["/command"] == 0


def test_a_publisher_that_starts_again_is_heard_again(robot: Rig) -> None:
    def act() -> None:
        robot.send("plan", plan(1), plan(2))
        robot.publishers.close("plan")
        robot.open("plan")
        robot.send("plan", plan(3), plan(4))

    episode = robot.episode(act)
    stream = episode.stream("plan")
    assert [len(stream.ragged(k)) // 8 for k in range(len(stream))] == [1, 2, 3, 4]
    assert episode.record.facts["lost_middleware"]["/plan"] == 0


def test_another_robots_topics_are_not_this_ones(robot: Rig) -> None:
    robot.publishers.open("other", "/joint_states", STATE)

    def act() -> None:
        robot.send("other", state(77))
        robot.send("joints", state(1))

    episode = robot.episode(act)
    robot.publishers.close("other")
    assert episode.stream("position").value[:, 0].tolist() == [1]
    assert episode.binding.namespace == NAMESPACE


def test_a_discarded_episode_is_gone_and_the_next_one_is_whole(robot: Rig) -> None:
    name = robot.session.start()
    robot.send("joints", state(1))
    robot.session.discard()
    episode = robot.episode(lambda: robot.send("joints", state(2)))
    assert episode.stream("position").value[:, 0].tolist() == [2]
    assert Dataset.open(robot.recorder.dataset.root).records[name].status == "discarded"


BAD: dict[str, tuple[str, Any, str]] = {
    "unknown joint": ("joints", lambda: state(9, names=("elbow", "knee", "grip")), "unknown joint"),
    "NaN": ("command", lambda: state(9, position=[0, float("nan"), 0]), "no finite number"),
    "changed image size": ("front", lambda: front(9, 128), "other image size"),
    "unknown encoding": ("side", lambda: side(9, "yuv422"), "unknown encoding"),
    "stamp 0": ("joints", lambda: state(9, stamp_ns=0), "stamp 0"),
    "stamps backwards": ("joints", lambda: state(9, stamp_ns=time.time_ns() - 10**9), "stamps go backwards"),
    "damaged": ("pose", lambda: pose(9)[:40], "damaged message"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_message_that_does_not_fit_ends_the_episode_loudly_and_keeps_what_came_before(robot: Rig, case: str) -> None:
    topic, make, cause = BAD[case]
    robot.session.said()

    def act() -> None:
        robot.send("joints", state(1), state(2))
        robot.send("depth", depth(1))
        robot.send(topic, make())
        robot.until_stopped()

    episode = robot.episode(act)
    told = [said for said in robot.session.said() if said.loud and "the journal lags" not in said.text]
    assert TOPICS[topic][0] in told[0].text
    assert (episode.record.outcome, episode.record.stop_cause) == ("unknown", cause)
    assert episode.stream("position").value[:, 0].tolist() == [1, 2]
    np.testing.assert_array_equal(episode.stream("depth").frame(0), distances(1))
    assert any("The episode ends there" in loss for loss in episode.record.losses)
    assert robot.recorder.dataset.verify().whole


def test_a_joint_state_in_part_gives_masked_rows(robot: Rig) -> None:
    episode = robot.episode(
        lambda: robot.send(
            "joints", state(1), state(2, names=JOINTS[2:]), state(3, names=JOINTS[::-1], position=[3, 2, 1])
        )
    )
    stream = episode.stream("position")
    assert stream.value.tolist() == [[1, 1.125, 1.25], [0, 0, 2], [1, 2, 3]]
    assert stream.mask.tolist() == [[True] * 3, [False, False, True], [True] * 3]


def test_publishers_that_are_not_heard_are_named_at_once_and_in_the_episode(robot: Rig) -> None:
    topic, msgtype = TOPICS["strict"]
    robot.publishers.open("strict", f"/{NAMESPACE}{topic}", msgtype, reliable=False)
    robot.publishers.open("odd text", f"/{NAMESPACE}{TOPICS['odd'][0]}", TEXT)
    robot.tick_until(lambda: len({f["topic"] for f in robot.recorder.findings if f["kind"] == "qos"}) >= 2, 20)
    told = robot.said()
    assert (
        "/strict: 1 of 1 publishers are not heard: they offer best_effort, volatile, the embodiment's qos asks" in told
    )
    assert "/odd: expected geometry_msgs/msg/PoseStamped, a publisher sends std_msgs/msg/String" in told
    episode = robot.episode(lambda: robot.send("joints", state(1)))
    kinds = {(finding["kind"], finding["topic"]) for finding in episode.record.facts["findings"]}
    assert {("qos", "/strict"), ("qos", "/odd")} <= kinds
    robot.publishers.close("strict")
    robot.publishers.close("odd text")


def test_a_camera_that_is_unplugged_is_told_and_heard_again(robot: Rig) -> None:
    def act() -> None:
        for number in range(15):
            robot.send("front", front(number))
            time.sleep(0.05)
        robot.publishers.close("front")
        robot.tick_until(lambda: any(f["topic"] == "/front/compressed" for f in robot.recorder.findings), 20)
        robot.open("front", reliable=False)
        robot.send("front", front(15))

    episode = robot.episode(act)
    assert [episode.stream("front").encoded(k) for k in range(16)] == [jpeg(k) for k in range(16)]
    assert any(finding["topic"] == "/front/compressed" for finding in episode.record.facts["findings"])


def test_the_order_of_a_fast_topic_is_kept_and_nothing_is_lost(robot: Rig) -> None:
    total = 2000
    episode = robot.episode(
        lambda: robot.publishers.send("joints", *(state(k) for k in range(total)), interval_s=0.0002)
    )
    stream = episode.stream("position")
    lost = (
        episode.record.facts["lost_middleware"]["/joint_states"] + episode.record.facts["lost_queue"]["/joint_states"]
    )
    assert len(stream) + lost == total
    assert lost == 0
    assert stream.value[:, 0].tolist() == list(range(total))


def values(episode: Episode, name: str) -> list[float]:
    return [float(value) for value in episode.stream(name).value[:, 0]]


def test_episodes_one_after_another_share_no_message_and_miss_none(robot: Rig) -> None:
    """The publisher never pauses; what is published between save and start belongs to none."""
    robot.publishers.pump("joints", state, 200)
    episodes = []
    for _ in range(3):
        name = robot.session.start()
        robot.tick_until(lambda: robot.session.elapsed_s > 0.5)
        robot.session.save("success")
        episodes.append(name)
    robot.publishers.rest()
    rows = [values(robot.sealed(name), "position") for name in episodes]
    for row in rows:
        assert len(row) > 60
        assert row == list(range(int(row[0]), int(row[0]) + len(row)))
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(rows))


def test_starting_without_a_needed_topic_is_refused_by_name(robot: Rig, tmp_path: Any) -> None:
    with recording_rig(tmp_path / "d.zarr", rig()) as other:
        other.open("joints", "command", "pose", "side", "depth")
        other.publishers.open("wrong", TOPICS["front"][0], TEXT)
        other.wake("joints", "command", "pose", "side", "depth")
        other.tick_until(lambda: other.problem("/front/compressed"))
        with pytest.raises(
            InputError, match=r"Nothing was heard yet on /front/compressed: .* a publisher sends std_msgs"
        ):
            other.session.start()
        assert Dataset.open(tmp_path / "d.zarr").records == {}
