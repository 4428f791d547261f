"""`lehrling serve` and `serve-key`: real policies behind the socket, as an operator starts them."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_once import made_once
from small_policies import CHUNK, PX, save_checkpoint, save_policy, seen
from watching import until

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.client import PolicyClient
from lehrling.training.policy import load_policy

SCRIPT = str(Path(sys.executable).parent / "lehrling")


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save two policies on one small backbone."""

    def make(folder: Path) -> None:
        checkpoint = save_checkpoint(folder / "base", seed=0)
        for seed, name in enumerate(("bolt", "nut")):
            save_policy(folder / name, checkpoint, seed)

    return made_once(tmp_path_factory, "served", make)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def started(policies: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server of both policies with a key; give its process and address."""
    keys = ("--keys", str(tmp_path / "keys.yaml"))
    process = subprocess.Popen(
        [
            SCRIPT,
            "serve",
            policies / "bolt",
            f"second={policies / 'nut'}",
            "--port",
            "0",
            "--json",
            "--batch",
            "2",
            *keys,
        ],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "told").open("w"),
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r'"url": "([^"]+)"', "".join(process.stdout.readline() for _ in range(3)))
    assert found, (tmp_path / "told").read_text()
    yield process, found.group(1)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_two_policies_of_one_base_answer_as_each_does_alone(
    policies: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = run("serve-key", "robot", "--keys", tmp_path / "keys.yaml", "--days", 2)
    assert made.returncode == 0
    key = made.stdout.strip()
    process, url = request.getfixturevalue("started")
    port = url.rpartition(":")[2]

    def ready() -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200)
        except OSError:
            return False

    until(ready)
    with pytest.raises(InputError, match="401"):
        PolicyClient(url)
    look = seen(5)
    asked = {"observation/front": look.images["front"], "observation/state": look.state, "prompt": look.instruction}
    with PolicyClient(url, key=key) as client:
        assert list(client.hello["adapters"]) == ["bolt", "second"]
        for adapter, folder in (("bolt", "bolt"), ("second", "nut"), ("bolt", "bolt")):
            answer = client.infer(asked | {"adapter": adapter})
            alone = load_policy(policies / folder).act([look])[0]
            assert answer["actions"].shape == (CHUNK, 1)
            np.testing.assert_allclose(answer["actions"], alone, atol=1e-5)
        assert np.array_equal(client.infer(asked)["actions"], client.infer(asked | {"adapter": "bolt"})["actions"])
        with pytest.raises(LehrlingError, match=f"\\({PX}, {PX}, 3\\) uint8"):
            client.infer(asked | {"observation/front": np.zeros((8, 8, 3), np.uint8)})
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "told").read_text()


@pytest.mark.slow
def test_a_check_answers_every_policy_and_a_bench_says_how_long_it_takes(policies: Path) -> None:
    checked = run("serve", policies / "bolt", policies / "nut", "--check")
    assert checked.returncode == 0, checked.stderr
    assert "bolt: 1 requests answered" in checked.stderr
    assert "nut: 1 requests answered" in checked.stderr
    found = json.loads(run("serve", policies / "bolt", "--bench", 5, "--json").stdout)
    assert found["bolt"]["requests"] == 5
    assert found["bolt"]["p99_ms"] >= found["bolt"]["p50_ms"] > found["bolt"]["infer_p50_ms"] > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["none"], "policy.json"),
        (["bolt", "bolt"], "twice or none"),
        (["bolt", "--host", "0.0.0.0"], "which needs --keys and --tls-cert"),
        (["bolt", "--tls-cert", "a.pem"], "--tls-cert and --tls-key together"),
        (["bolt", "--keys", "none.yaml"], "a file of API keys"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(policies: Path, words: list[str], problem: str) -> None:
    said = run("serve", *(policies / word if not word.startswith("-") and "." not in word else word for word in words))
    assert said.returncode == 2
    assert problem in said.stderr
    assert "Traceback" not in said.stderr


def test_a_key_is_printed_once_and_kept_as_a_hash_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    first = run("serve-key", "robot", "--keys", file)
    second = run("serve-key", "prom", "--keys", file, "--scope", "metrics")
    text = file.read_text()
    assert first.stdout.strip() not in text
    assert second.stdout.strip() not in text
    assert "metrics" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run("serve-key", "robot", "--keys", file)
    assert (again.returncode, again.stdout) == (2, "")
    assert "knows a key 'robot' already" in again.stderr
    assert file.read_text() == text
    assert run("serve-key", "x", "--keys", file, "--scope", "all").returncode == 2
