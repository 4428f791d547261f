"""GR00T's protocol: a client written from its contract drives the server; what is no request leaves it as it was."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import CHUNK, PX, SPEC, Told

from lehrling.datasets.errors import InputError
from lehrling.deploy.api_keys import Key, Keys, new_key
from lehrling.deploy.groot_front import flat, grouped, groups, unpack
from lehrling.deploy.requests import RequestError, Served
from lehrling.deploy.server import PolicyServer, ServeOptions
from lehrling.training.protocol import PolicySpec

NAMED = PolicySpec(("front",), PX, ("arm.a", "arm.b"), ("tcp.x", "tcp.y", "grip.open"), CHUNK, 10.0)
SERVED = {name: Served(name, NAMED) for name in ("first", "second")}


def encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": out.getvalue()}
    return value


def decode(found: dict[str, Any]) -> Any:
    if "__ndarray_class__" in found:
        return np.load(io.BytesIO(found["as_npy"]), allow_pickle=False)
    return found["as_json"] if "__ModalityConfig_class__" in found else found


class Client:
    """A GR00T client: REQ, one request at a time."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")
        self.token = {"api_token": token} if token else {}

    def raw(self, message: bytes) -> Any:
        self.socket.send(message)
        return msgpack.unpackb(self.socket.recv(), object_hook=decode)

    def call(self, endpoint: str, **data: Any) -> Any:
        more = {"data": data} if data else {}
        return self.raw(msgpack.packb({"endpoint": endpoint, **more, **self.token}, default=encode))

    def close(self) -> None:
        self.socket.close(0)
        self.context.term()


def seen(bright: int = 7, *state: float) -> dict[str, Any]:
    return {
        "video": {"front": np.full((1, 2, PX, PX, 3), bright, np.uint8)},
        "state": {"arm": np.array(state or (1.0, 2.0), np.float32).reshape(1, 1, 2)},
        "language": {"annotation.human.task_description": [["pick it"]]},
    }


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(Told(), SERVED, ServeOptions(port=0, groot_port=0)) as made:
        yield made


@pytest.fixture
def client(server: PolicyServer) -> Iterator[Client]:
    made = Client(server.groot_port)
    yield made
    made.close()


def test_a_client_asks_and_gets_actions_by_group(client: Client) -> None:
    assert client.call("ping") == {"status": "ok", "message": "Server is running"}
    actions, info = client.call("get_action", observation=seen(9, 1.5, 2.0), options=None)
    assert sorted(actions) == ["grip", "tcp"]
    np.testing.assert_array_equal(actions["tcp"], np.tile(np.array([3.5, 9.0], np.float32), (1, CHUNK, 1)))
    np.testing.assert_array_equal(actions["grip"][0, :, 0], np.arange(CHUNK))
    assert info["infer_ms"] >= 0
    assert client.call("reset", options=None) == {}


def test_a_client_is_told_keys_and_steps(client: Client) -> None:
    config = client.call("get_modality_config")
    assert config["video"] == {"delta_indices": [0], "modality_keys": ["front"]}
    assert config["state"] == {"delta_indices": [0], "modality_keys": ["arm"]}
    assert config["action"] == {"delta_indices": list(range(CHUNK)), "modality_keys": ["tcp", "grip"]}


def test_an_adapter_is_chosen_by_option(server: PolicyServer, client: Client) -> None:
    client.call("get_action", observation=seen(), options={"adapter": "second"})
    told = server._actor
    assert isinstance(told, Told)
    assert told.batches[-1] == ("second", 1)
    answer = client.call("get_action", observation=seen(), options={"adapter": "third"})
    assert "no adapter 'third' here; there are first, second" in answer["error"]


@pytest.mark.parametrize(
    ("endpoint", "data", "says"),
    [
        ("kill", {}, "no endpoint 'kill'"),
        ("get_action", {"observation": {}}, "'video' is missing"),
        ("get_action", {"observation": seen() | {"language": {}}}, "one instruction"),
        ("get_action", {"observation": seen() | {"state": {"arm": np.zeros((1, 2), np.float32)}}}, "state.arm"),
        (
            "get_action",
            {"observation": seen() | {"video": {"side": np.zeros((1, 1, 4, 4, 3), np.uint8)}}},
            "video.front",
        ),
        ("get_action", {}, "Expected data with an observation"),
    ],
)
def test_a_request_that_does_not_fit_is_answered_by_an_error(
    client: Client, endpoint: str, data: dict[str, Any], says: str
) -> None:
    assert says in client.call(endpoint, **data)["error"]
    assert client.call("ping")["status"] == "ok"


def test_a_policy_that_fails_answers_without_a_traceback(server: PolicyServer, client: Client) -> None:
    told = server._actor
    assert isinstance(told, Told)
    told.fails = ValueError("secret path")
    assert client.call("get_action", observation=seen())["error"] == "The policy failed (ValueError)."


def test_only_a_known_token_is_served() -> None:
    secret, digest = new_key()
    keys = Keys((Key(name="cell", sha256=digest, scopes=("infer",)),))
    with PolicyServer(Told(), SERVED, ServeOptions(port=0, groot_port=0, keys=keys)) as server:
        for token, says in ((None, "Expected one header"), ("wrong", "not known")):
            client = Client(server.groot_port, token)
            assert says in client.call("ping")["error"]
            client.close()
        client = Client(server.groot_port, secret)
        assert client.call("ping")["status"] == "ok"
        client.close()


def test_a_slow_policy_does_not_keep_others_from_being_heard(server: PolicyServer, client: Client) -> None:
    told = server._actor
    assert isinstance(told, Told)
    told.open.clear()
    other = Client(server.groot_port)
    other.socket.send(msgpack.packb({"endpoint": "get_action", "data": {"observation": seen()}}, default=encode))
    assert client.call("ping")["status"] == "ok"
    told.open.set()
    assert other.socket.recv()
    other.close()


def test_it_is_not_reached_from_other_machines() -> None:
    with pytest.raises(InputError, match="knows no TLS"):
        ServeOptions(
            host="0.0.0.0",
            groot_port=0,
            keys=Keys((Key(name="cell", sha256="0" * 64, scopes=("infer",)),)),
            tls=(__file__, __file__),  # type: ignore[arg-type]
        )


def test_an_age_that_the_protocol_cannot_say_is_not_promised() -> None:
    with pytest.raises(InputError, match="--max-age cannot be kept with --groot-port"):
        ServeOptions(groot_port=0, max_age_s=0.1)


def test_requests_are_counted_with_those_of_the_other_door(server: PolicyServer, client: Client) -> None:
    client.call("get_action", observation=seen(), options={"adapter": "second"})
    client.call("ping")
    client.call("kill")
    told = server._actor
    assert isinstance(told, Told)
    told.fails = ValueError("broken")
    client.call("get_action", observation=seen())
    lines = server.metrics.text().decode()
    assert 'lehrling_requests_total{adapter="second",outcome="answered"} 1.0' in lines
    assert 'lehrling_requests_total{adapter="",outcome="refused"} 1.0' in lines
    assert 'lehrling_requests_total{adapter="",outcome="failed"} 1.0' in lines
    assert "lehrling_request_seconds_count 1.0" in lines


def test_a_taken_port_is_told(server: PolicyServer) -> None:
    other = PolicyServer(Told(), SERVED, ServeOptions(port=0, groot_port=server.groot_port))
    with pytest.raises(InputError, match="for GR00T"):
        other.start()


def npy(shape: str, data: bytes, descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    "data",
    [
        npy("(1000000000, 1000)", b""),
        npy("(2,)", b"\0" * 9),
        npy("(1,)", b"\0" * 8, "|O"),
        npy("(1,)", b"\0" * 8, "|V8"),
        npy("(-1,)", b""),
        npy("(" + "1, " * 20 + ")", b"\0" * 4),
        b"\x93NUMPY\x09\x00",
        b"",
        "text",
    ],
)
def test_an_array_that_is_none_is_refused_and_nothing_is_allocated_for_it(data: Any) -> None:
    with pytest.raises(RequestError):
        unpack(msgpack.packb({"x": {"__ndarray_class__": True, "as_npy": data}}))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert isinstance(unpack(message), dict)


def test_a_fortran_array_keeps_its_order() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(unpack(msgpack.packb({"x": array}, default=encode))["x"], array)


def test_names_without_a_stream_are_groups_of_their_own() -> None:
    assert groups(SPEC.state_names) == {"a": [0], "b": [1]}
    chunk = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert list(grouped(chunk, SPEC.action_names)) == ["x", "y", "z"]
    found = flat(seen() | {"state": {"a": np.ones((1, 1, 1)), "b": np.full((1, 3, 1), 2.0)}}, Served("p", SPEC))
    np.testing.assert_array_equal(found["observation/state"], [1, 2])
