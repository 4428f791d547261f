"""The examples for other people's CI are valid and name commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_command_line

from lehrling.sim.robots import ROBOTS
from lehrling.sim.tasks import TASKS
from lehrling.training.config import load_config

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci"
SCHEMAS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}


def validate(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


def scripts() -> dict[str, list[str]]:
    steps = read("github-actions.yml")["jobs"]["simulate"]["steps"]
    return {
        "github-actions.yml": [step["run"] for step in steps if "run" in step],
        "gitlab-ci.yml": read("gitlab-ci.yml")["policy"]["script"],
    }


def words(verb: str) -> list[str]:
    """Return the words of the one command with this verb."""
    lines = [line for line in scripts()["gitlab-ci.yml"] if line.startswith(f"lehrling {verb} ")]
    (line,) = lines
    return shlex.split(line)[1 + len(verb.split()) :]


def option(verb: str, name: str) -> str:
    return words(verb)[words(verb).index(name) + 1]


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_example_fits_its_services_schema(name: str) -> None:
    done = validate(EXAMPLES / name, SCHEMAS[name])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_would_notice_a_misspelt_key(name: str, tmp_path: Path) -> None:
    content = (EXAMPLES / name).read_text(encoding="utf-8")
    wrong = tmp_path / name
    wrong.write_text(content.replace("steps:", "stepz:").replace("reports:", "reportz:"), encoding="utf-8")
    assert validate(wrong, SCHEMAS[name]).returncode != 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_command_of_an_example_is_one_that_lehrling_takes(name: str) -> None:
    lines = scripts()[name]
    assert all(shlex.split(line)[0] == "lehrling" for line in lines)
    verbs = [check_command_line(line) for line in lines]
    assert verbs == ["sim generate", "verify", "view", "train", "eval"]


def test_both_examples_do_the_same() -> None:
    first, second = scripts().values()
    assert first == second


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="no-such"):
        check_command_line("lehrling verify cell.zarr --no-such")


def test_each_step_takes_what_the_step_before_left() -> None:
    config = load_config(EXAMPLES / "train.yaml")
    dataset = words("sim generate")[0]
    assert {words("verify")[0], words("view")[0], str(config.dataset)} == {dataset}
    assert option("view", "--name") == config.view
    assert words("train") == ["train.yaml"]
    assert Path(words("eval")[0]) == config.output / "policy"


def test_the_gate_judges_the_task_that_was_shown_on_layouts_that_were_not() -> None:
    assert option("sim generate", "--task") == option("eval", "--task")
    assert option("eval", "--task") in TASKS
    assert option("sim generate", "--robot") in ROBOTS
    assert float(option("eval", "--min-success")) >= 0.5
    assert "--seed" not in words("sim generate") + words("eval")


def test_github_keeps_report_and_policy_even_of_a_red_run() -> None:
    steps = read("github-actions.yml")["jobs"]["simulate"]["steps"]
    (upload,) = [step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == [words("eval")[0], option("eval", "--out"), option("eval", "--junit")]


def test_gitlab_keeps_report_and_policy_even_of_a_red_run() -> None:
    artifacts = read("gitlab-ci.yml")["policy"]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["reports"]["junit"] == option("eval", "--junit")
    assert artifacts["paths"] == [words("eval")[0], option("eval", "--out"), option("eval", "--junit")]


def test_every_action_is_pinned_to_a_commit_and_says_which_version_that_is() -> None:
    lines = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8").splitlines()
    used = [line.split("uses:", 1)[1].strip() for line in lines if "uses:" in line]
    assert len(used) == 2
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_github_may_only_read_and_no_job_runs_for_hours() -> None:
    workflow = read("github-actions.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert not any("permissions" in job for job in workflow["jobs"].values())
    checkout = workflow["jobs"]["simulate"]["steps"][0]
    assert checkout["with"] == {"persist-credentials": False}
    minutes = re.fullmatch(r"(\d+) minutes", read("gitlab-ci.yml")["policy"]["timeout"])
    assert minutes is not None
    assert 0 < int(minutes[1]) <= 60


def test_both_examples_run_the_image_of_this_version() -> None:
    cli = tomllib.loads((ROOT / "cli" / "pyproject.toml").read_text(encoding="utf-8"))
    gitlab = read("gitlab-ci.yml")["policy"]["image"]
    assert gitlab["entrypoint"] == [""], "GitLab runs a shell in the image, not lehrling"
    for image in (read("github-actions.yml")["jobs"]["simulate"]["container"]["image"], gitlab["name"]):
        assert image.rsplit("/", 1)[1] == f"lehrling-core:{cli['project']['version']}"


@pytest.mark.parametrize("path", [EXAMPLES / "train.yaml", ROOT / "examples" / "train.yaml"])
def test_a_training_example_is_a_valid_configuration(path: Path) -> None:
    config = load_config(path)
    assert (config.base.path, config.view) == ("builtin:base", "train")


def test_the_commands_of_the_readme_exist() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line.split("#")[0].strip() for line in lines if line.startswith("lehrling ")]
    assert len(commands) >= 7
    assert {check_command_line(line) for line in commands} >= {"sim generate", "verify", "view", "train", "eval"}
