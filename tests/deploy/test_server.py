"""The policy server over its socket: hello, chunks, refusals, batching, and clients that misbehave."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import CHUNK, PX, Client, Told, observation, serving
from watching import until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lehrling.datasets.errors import InputError
from lehrling.deploy.api_keys import Key, Keys, new_key
from lehrling.deploy.client import PolicyClient
from lehrling.deploy.requests import Request
from lehrling.deploy.server import PolicyServer, ServeOptions
from lehrling.deploy.wire import pack


def get(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_client_is_told_what_the_policy_takes_and_gets_chunks() -> None:
    with serving() as server, Client(server) as client:
        assert client.hello["cameras"] == ["front"]
        assert client.hello["action_names"] == ["x", "y", "z"]
        assert client.hello["keys"] == ["observation/front", "observation/state", "prompt"]
        assert (client.hello["action_horizon"], client.hello["contract"]) == (CHUNK, "c0ffee")
        first = client.ask(observation(1.5, 2.0, bright=7))
        assert first["actions"].tolist() == [[3.5, 7, step] for step in range(CHUNK)]
        assert first["actions"].dtype == np.float32
        assert "prev_total_ms" not in first["server_timing"]
        second = client.ask(observation(0.0, 1.0, step=12, obs_stamp=5.5, contract="c0ffee"))
        assert second["server_timing"]["prev_total_ms"] >= second["server_timing"]["infer_ms"] >= 0
        assert (second["chunk_start_step"], second["obs_stamp"], second["adapter"]) == (12, 5.5, "first")


def test_every_array_of_an_answer_has_a_row_for_each_step() -> None:
    """The official client's ActionChunkBroker takes a row of every array there is."""
    with serving() as server, Client(server) as client:
        answer = client.ask(observation(step=1))
        arrays = [value for value in answer.values() if isinstance(value, np.ndarray)]
        assert [len(value) for value in arrays] == [CHUNK]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"observation/side": 1}, "'observation/side' is no key"),
        ({"observation/front": None}, "as (h, w, 3) uint8"),
        ({"observation/front": np.zeros((PX, PX, 4), np.uint8)}, "as (h, w, 3) uint8"),
        ({"observation/front": np.zeros((PX, PX, 3), np.float32)}, "as (h, w, 3) uint8"),
        ({"observation/front": np.zeros((PX + 1, PX, 3), np.uint8)}, f"({PX}, {PX}, 3) uint8"),
        ({"observation/state": np.zeros(3, np.float32)}, "2 finite numbers (a, b)"),
        ({"observation/state": np.array([1.0, np.nan])}, "2 finite numbers"),
        ({"observation/state": np.array(["a", "b"])}, "2 finite numbers"),
        ({"observation/state": ["a", "b"]}, "2 finite numbers"),
        ({"observation/state": 7}, "2 finite numbers"),
        ({"prompt": ""}, "'prompt' as text"),
        ({"prompt": "x" * 2001}, "'prompt' as text"),
        ({"prompt": 5}, "'prompt' as text"),
        ({"adapter": "none"}, "There is no adapter 'none' here; there are first"),
        ({"adapter": 3}, "There is no adapter 3"),
        ({"contract": "other"}, "contract is 'other', the policy was trained on 'c0ffee'"),
        ({"obs_stamp": "now"}, "'obs_stamp' in seconds"),
        ({"step": -1}, "'step' as a whole number"),
        ({"step": True}, "'step' as a whole number"),
        ({"prev_chunk_tail": np.zeros((2, 2), np.float32)}, "'prev_chunk_tail' as (n, 3)"),
        ({"executed": np.full((2, 3), np.inf)}, "'executed' as at most 4 finite rows"),
    ],
)
def test_a_wrong_request_is_answered_by_one_sentence_and_the_next_client_is_served(
    change: dict[str, Any], problem: str
) -> None:
    with serving() as server:
        with Client(server) as client:
            text = client.refused(observation() | change)
            assert problem in text
            assert "Traceback" not in text
            assert len(text) < 501
            with pytest.raises(ConnectionClosed) as closed:
                client.ask(observation())
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
        with Client(server) as client:
            assert client.ask(observation())["actions"].shape == (CHUNK, 3)


@pytest.mark.parametrize("frame", ["text", b"\xc1", pack({"observation/front": [1]})])
def test_what_is_no_observation_is_answered_by_one_sentence(frame: Any) -> None:
    with serving() as server, Client(server) as client:
        assert "xpected" in client.refused(frame) or "lacks" in client.refused(frame)


def test_a_frame_that_is_too_large_ends_the_connection() -> None:
    with serving(frame_bytes_max=2000) as server:
        with Client(server) as client, pytest.raises(ConnectionClosed) as closed:
            client.ask(observation(prompt="x" * 2500))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        with Client(server) as client:
            assert "actions" in client.ask(observation())


def test_an_old_observation_is_refused_where_its_age_is_limited() -> None:
    with serving(max_age_s=0.5) as server:
        with Client(server) as client:
            assert "actions" in client.ask(observation(obs_stamp=time.time()))
            assert "ms old, more than 500" in client.refused(observation(obs_stamp=time.time() - 0.9))
        with Client(server) as client:
            assert "Expected 'obs_stamp'" in client.refused(observation())


def test_a_policy_that_fails_says_so_without_its_insides() -> None:
    actor = Told()
    with serving(actor) as server:
        actor.fails = ZeroDivisionError("/secret/path")
        with Client(server) as client:
            text = client.refused(observation())
        assert text == "The policy failed (ZeroDivisionError); see the server's log."
        actor.fails = None
        with Client(server) as client:
            assert "actions" in client.ask(observation())


def test_actions_that_are_not_finite_are_not_sent() -> None:
    class Wild(Told):
        def act(self, name: str, observations: Any) -> Any:
            return super().act(name, observations) + (np.nan if self.batches[2:] else 0)

    with serving(Wild()) as server, Client(server) as client:
        assert "not finite" in client.refused(observation())


def test_health_readiness_and_metrics_are_plain_http() -> None:
    with serving(warm_up=False) as server:
        assert get(server, "/healthz") == (200, "OK\n")
        assert get(server, "/readyz") == (503, "warming up\n")
        server.warm_up()
        assert get(server, "/readyz") == (200, "OK\n")
        with Client(server) as client:
            client.ask(observation())
            status, text = get(server, "/metrics")
        assert status == 200
        assert 'lehrling_requests_total{adapter="first",outcome="answered"} 1.0' in text
        assert "lehrling_clients 1.0" in text
        assert 'lehrling_infer_seconds_count{adapter="first"}' in text


def test_keys_say_who_may_connect_and_who_may_look() -> None:
    (infer, infer_hash), (look, look_hash) = new_key(), new_key()
    keys = Keys(
        (Key(name="robot", sha256=infer_hash), Key(name="prom", sha256=look_hash, scopes=frozenset({"metrics"})))
    )
    with serving(keys=keys) as server:
        with pytest.raises(InvalidStatus) as refused:
            Client(server)
        assert refused.value.response.status_code == 401
        with pytest.raises(InvalidStatus) as refused:
            Client(server, additional_headers={"Authorization": f"Api-Key {look}"})
        assert refused.value.response.status_code == 403
        with Client(server, additional_headers={"Authorization": f"Api-Key {infer}"}) as client:
            assert "actions" in client.ask(observation())
        assert get(server, "/metrics")[0] == 401
        status, text = get(server, "/metrics", Authorization=f"Api-Key {look}")
        assert status == 200
        assert 'lehrling_refused_total{status="401"} 2.0' in text
        assert get(server, "/healthz")[0] == 200


def test_what_waits_for_an_adapter_goes_together_and_each_gets_its_own_answer() -> None:
    actor = Told()
    with serving(actor, "one", "two", batch_max=8) as server:
        actor.batches.clear()
        actor.open.clear()
        clients = [Client(server) for _ in range(13)]
        for number, client in enumerate(clients):
            client.send(observation(float(number), 0.0, adapter="one" if number % 3 else "two"))
            until(lambda number=number: server._batcher.waiting == max(number, 0))  # type: ignore[misc]
        actor.open.set()
        for number, client in enumerate(clients):
            answer = client._map()
            assert answer["actions"][0, 0] == number
            assert answer["adapter"] == ("one" if number % 3 else "two")
            client.socket.close()
        assert actor.batches == [("two", 1), ("one", 8), ("two", 4)]


def test_sixteen_clients_get_far_more_together_than_one_alone_and_none_starves() -> None:
    with serving(Told(takes_s=0.02), batch_max=16) as server:

        def work(number: int) -> int:
            done, until_s = 0, time.monotonic() + 1.5
            with Client(server) as client:
                while time.monotonic() < until_s:
                    assert client.ask(observation(float(number), 0.0))["actions"][0, 0] == number
                    done += 1
            return done

        alone = work(3)
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(work, range(16)))
    assert sum(together) >= 3 * alone
    assert min(together) >= sum(together) / 16 / 3


def test_a_client_that_goes_while_its_chunk_is_inferred_harms_nobody() -> None:
    actor = Told()
    with serving(actor) as server:
        actor.open.clear()
        gone = Client(server)
        gone.send(observation())
        until(lambda: server._batcher.waiting == 0)
        gone.socket.socket.shutdown(socket.SHUT_RDWR)
        with Client(server) as client:
            client.send(observation(4.0, 0.0))
            actor.open.set()
            assert client._map()["actions"][0, 0] == 4
        until(lambda: server._clients == 0)


def test_long_inference_does_not_end_a_connection() -> None:
    with serving(Told(takes_s=1.0), ping_s=0.2) as server, Client(server) as client:
        assert "actions" in client.ask(observation())


def test_a_client_that_sends_byte_by_byte_holds_up_nobody() -> None:
    with serving() as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        stop = threading.Event()

        def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 10_000:
                if stop.wait(0.01):
                    return
                slow.send(bytes([byte]))

        thread = threading.Thread(target=drip)
        thread.start()
        with Client(server) as client:
            times = []
            for _ in range(20):
                began = time.monotonic()
                client.ask(observation())
                times.append(time.monotonic() - began)
        assert sorted(times)[10] < 0.5
        stop.set()
        thread.join()
        slow.close()


def test_more_clients_than_allowed_are_told_so() -> None:
    with serving(clients_max=2) as server, Client(server), Client(server):
        with pytest.raises(InvalidStatus) as refused:
            Client(server)
        assert refused.value.response.status_code == 503


def test_in_shadow_nothing_is_sent_that_could_move_a_robot_and_everything_is_told() -> None:
    seen: list[tuple[Request, Any]] = []
    done = np.ones((2, 3), np.float32)
    with serving(shadow=lambda request, actions: seen.append((request, actions))) as server, Client(server) as client:
        assert client.hello["shadow"] is True
        answer = client.ask(observation(1.0, 1.0, executed=done))
        assert answer["shadow"] is True
        assert "actions" not in answer
    ((request, actions),) = seen
    assert actions[0].tolist() == [2, 0, 0]
    assert request.executed is not None
    np.testing.assert_array_equal(request.executed, done)


def test_serving_to_other_machines_needs_key_and_tls(tmp_path: Path) -> None:
    _, digest = new_key()
    keys = Keys((Key(name="robot", sha256=digest),))
    for options in ({}, {"keys": keys}, {"tls": (tmp_path / "a", tmp_path / "b")}):
        with pytest.raises(InputError, match="which needs --keys and --tls-cert"):
            ServeOptions(host="0.0.0.0", **options)
    with pytest.raises(InputError, match="PEM files"):
        PolicyServer(Told(), {}, ServeOptions(host="0.0.0.0", keys=keys, tls=(tmp_path / "a", tmp_path / "b")))


def test_a_client_that_trusts_the_certificate_connects_over_tls(tmp_path: Path) -> None:
    from certificates import self_signed

    certificate, key = self_signed(tmp_path)
    with serving(tls=(certificate, key)) as server:
        assert server.url.startswith("wss://")
        with PolicyClient(server.url, certificate=certificate) as client:
            assert "actions" in client.infer(observation())
        with pytest.raises(InputError, match=r"no certificate that is trusted \(self-signed certificate\); give"):
            PolicyClient(server.url)
        with pytest.raises(InputError, match=r"Expected a certificate \(PEM\) in .*none.pem, but it cannot be read"):
            PolicyClient(server.url, certificate=tmp_path / "none.pem")
        with pytest.raises(InputError, match=r"Expected a certificate \(PEM\) in .*server.key, but it cannot be read"):
            PolicyClient(server.url, certificate=key)


def test_an_address_that_is_taken_is_said() -> None:
    with serving() as server:
        other = PolicyServer(Told(), {}, ServeOptions(port=server.port))
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1:{server.port}"):
            other.start()


OUTSIDE = Path(__file__).parents[2] / ".venvs/clients/bin/python"
SCRIPT = """
import json, sys, numpy as np
from {module} import WebsocketClientPolicy
client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key=sys.argv[2])
seen = {{"observation/front": np.full((16, 16, 3), 9, np.uint8), "observation/state": np.array([1.0, 2.0]), "prompt": "go"}}
rows = [client.infer(seen)["actions"].tolist() for _ in range(3)]
from {broker} import ActionChunkBroker
broker = ActionChunkBroker(client, action_horizon=4)
steps = [broker.infer(seen)["actions"].tolist() for _ in range(5)]
try:
    client.infer({{"prompt": "go"}})
    error = ""
except RuntimeError as found:
    error = str(found)
print(json.dumps([client.get_server_metadata()["cameras"], rows, steps, error]))
getattr(client, "close", lambda: None)()
"""


@pytest.mark.parametrize(
    ("module", "broker"),
    [
        ("openpi_client.websocket_client_policy", "openpi_client.action_chunk_broker"),
        ("policy_websocket", "policy_websocket"),
    ],
)
def test_clients_of_other_projects_drive_the_server_unchanged(module: str, broker: str) -> None:
    assert OUTSIDE.exists(), "`make setup` builds the environment of outside clients"
    key, digest = new_key()
    with serving(keys=Keys((Key(name="robot", sha256=digest),))) as server:
        words = [str(OUTSIDE), "-c", SCRIPT.format(module=module, broker=broker), str(server.port), key]
        run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    cameras, rows, steps, error = json.loads(run.stdout)
    chunk = [[3.0, 9.0, float(step)] for step in range(CHUNK)]
    assert cameras == ["front"]
    assert rows == [chunk] * 3
    assert steps == [*chunk, chunk[0]]
    assert "lacks 'observation/front'" in error
