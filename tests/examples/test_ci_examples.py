"""The examples for other people's CI are valid and name commands that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_command_line

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
    verbs = [check_command_line(line) for line in scripts()[name]]
    assert verbs == ["sim generate", "verify", "view", "train", "eval"]


def test_both_examples_do_the_same() -> None:
    first, second = scripts().values()
    assert first == second


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="no-such"):
        check_command_line("lehrling verify cell.zarr --no-such")


@pytest.mark.parametrize("path", [EXAMPLES / "train.yaml", ROOT / "examples" / "train.yaml"])
def test_a_training_example_is_a_valid_configuration(path: Path) -> None:
    config = load_config(path)
    assert (config.base.path, config.view) == ("builtin:base", "train")


def test_the_commands_of_the_readme_exist() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line.split("#")[0].strip() for line in lines if line.startswith("lehrling ")]
    assert len(commands) >= 7
    assert {check_command_line(line) for line in commands} >= {"sim generate", "verify", "view", "train", "eval"}
