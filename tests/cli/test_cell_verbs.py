"""`lehrling cell`, `cell-user` and `cell-plc`, as a plant engineer uses them; the robot behind is made up."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cell_rig import PASSWORDS, cell_config
from cli_runs import SCRIPT, Command
from fake_runtime import FakeRuntime

from lehrling.cli import cell_verbs
from lehrling.deploy.audit_verify import verify
from lehrling.deploy.cell_users import Users

SUPPORT = Path(__file__).parents[1] / "support"
STARTED = """
import sys
sys.path.insert(0, {support!r})
from fake_runtime import FakeRuntime
import lehrling.deploy.robot_runtime as robot_runtime
robot_runtime.make_runtime = lambda config, where, write, said: FakeRuntime()
from lehrling.cli.main import run
run(sys.argv[1:])
"""


def test_a_user_is_made_and_its_password_shown_once(lehrling: Command, tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    made = lehrling("cell-user", "plc1", "--users", path, "--role", "operator")
    assert made.code == 0
    password = made.out.strip()
    assert "shown this once" in made.err
    user = Users.read(path).check("plc1", password)
    assert user is not None
    assert user.role == "operator"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lehrling("cell-user", "plc1", "--users", path).refused("knows a user 'plc1' already")
    assert lehrling("cell-user", "boss", "--users", path, "--role", "admin").refused("role")


def test_a_password_of_ones_own_is_read_from_stdin(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    words = [SCRIPT, "cell-user", "hmi", "--users", str(path), "--stdin"]
    done = subprocess.run(words, input="a long password\n", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert Users.read(path).check("hmi", "a long password")


def test_a_configuration_is_checked_without_a_robot(lehrling: Command, tmp_path: Path) -> None:
    cell_config(tmp_path)
    seen = lehrling("cell", tmp_path / "cell.yaml", "--check", "--json")
    assert seen.code == 0
    assert seen.data["recipes"] == {"1": "gears", "2": "shafts"}
    assert seen.data["users"] == {"operator": "operator", "observer": "observer"}
    assert re.fullmatch("[0-9a-f]{64}", seen.data["sha256"])
    assert (tmp_path / "pki" / "cell.der").is_file()
    told = yaml.safe_load((tmp_path / "cell.yaml").read_text())
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump(told | {"opcua": {"anonymous": True}}))
    assert lehrling("cell", tmp_path / "cell.yaml", "--check").refused("'opcua.anonymous' is not a key")
    assert lehrling("cell", tmp_path / "none.yaml").refused("no such file")


def test_a_plc_that_is_told_wrong_things_is_refused(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x\n")
    words = ("cell-plc", "opc.tcp://127.0.0.1:9/lehrling/", "--user", "plc", "--password-file", tmp_path / "password")
    assert lehrling(*words, "--trial", "explode").refused("Expected --trial heartbeat, repeat, reorder; got explode.")


@pytest.mark.slow
def test_a_cell_and_a_plc_as_two_commands(tmp_path: Path) -> None:
    config = cell_config(tmp_path)
    (tmp_path / "password").write_text(PASSWORDS["operator"] + "\n")
    code = STARTED.format(support=str(SUPPORT))
    with (tmp_path / "told").open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "cell", str(tmp_path / "cell.yaml"), "--json"],
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        url = json.loads("".join(lines))["url"]
        words = [SCRIPT, "cell-plc", url, "--user", "operator", "--password-file", str(tmp_path / "password")]
        words += ["--pki", str(tmp_path / "plc"), "--recipe", "1", "--recipe", "2", "--cycles", "3", "--json"]
        words += ["--trial", "repeat", "--trial", "reorder", "--trial", "heartbeat"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert [(each["cycle"], each["recipe"], each["result"]) for each in report["cycles"]] == [
            (1, 1, "success"),
            (2, 2, "success"),
            (3, 1, "success"),
        ]
        assert report["trials"][:2] == ["start left standing: one cycle", "older number: ignored"]
        assert "error 6" in report["trials"][2]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    said = (tmp_path / "told").read_text()
    assert "Traceback" not in said
    assert "stopping: the robot is brought to rest" in said
    assert verify(config.audit).records > 20


def test_the_robot_comes_to_rest_even_where_nobody_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(text: str) -> None:
        if text.startswith("stopping"):
            raise BrokenPipeError

    runtime = FakeRuntime()
    monkeypatch.setattr("lehrling.deploy.robot_runtime.make_runtime", lambda *_: runtime)
    monkeypatch.setattr(cell_verbs, "say", say)
    monkeypatch.setattr(cell_verbs, "_greet", lambda made, *_: made.cell.ended.set())
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(BrokenPipeError):
        cell_verbs._run(cell_config(tmp_path), tmp_path / "cell.yaml", json_=False)
    assert runtime.closed


@pytest.mark.parametrize("verb", ["cell", "cell-user", "cell-plc"])
def test_every_verb_has_help(lehrling: Command, verb: str) -> None:
    assert "Usage" in lehrling(verb, "--help").out
