"""Dockerfiles and compose file: linted, and cross-checked where the linters do not look."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_command_line

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE = ROOT / "docker" / "compose.yaml"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return (INSTRUCTION, rest) with continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def values(path: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(path) if instruction == name]


def stages(path: Path) -> dict[str, str]:
    """Return stage name -> base image, build arguments filled in."""
    defaults = dict(value.split("=", 1) for value in values(path, "ARG"))
    named = [re.fullmatch(r"(\S+) AS (\S+)", rest) for rest in values(path, "FROM")]
    assert all(named), "every FROM names its stage"
    filled = {m[2]: re.sub(r"\$\{(\w+)\}", lambda arg: defaults[arg[1]], m[1]) for m in named if m}
    return {stage: filled.get(base, base) for stage, base in filled.items()}


def services() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return content["services"]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that matches it or a parent decides."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    out = False
    for line in (line for line in lines if line and not line.startswith("#")):
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = Path(path).parts
        parents = ["/".join(parts[: k + 1]) for k in range(len(parts))]
        if any(
            fnmatch.fnmatch(p, pattern) or ("**/" in line and fnmatch.fnmatch(Path(p).name, pattern)) for p in parents
        ):
            out = not line.startswith("!")
    return out


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_there_is_a_core_image() -> None:
    assert [p.name for p in DOCKERFILES] == ["core.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = tool("hadolint", str(path))
    assert done.returncode == 0, done.stdout


def test_hadolint_would_notice_a_floating_base(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian\nRUN apt-get install -y git\n", encoding="utf-8")
    assert tool("hadolint", str(wrong)).returncode != 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_base_is_pinned_to_a_full_version(path: Path) -> None:
    for base in stages(path).values():
        assert re.search(r":\d+\.\d+\.\d+|@sha256:[0-9a-f]{64}", base), base


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_runs_without_privileges_and_knows_when_it_is_ill(path: Path) -> None:
    assert values(path, "USER")[-1] == "10001:10001"
    health = values(path, "HEALTHCHECK")
    command = json.loads(health[-1].split("CMD ", 1)[1])
    check_command_line(" ".join(command))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_copied_path_exists_and_reaches_the_build(path: Path) -> None:
    for rest in values(path, "COPY"):
        words = rest.split()
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages(path)
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source


def test_the_build_gets_code_and_weights_but_no_environment_and_no_history() -> None:
    for path in ("training/lehrling/training/bases/base/model.safetensors", "cli/lehrling/cli/main.py", "uv.lock"):
        assert (ROOT / path).is_file()
        assert not ignored(path)
    for path in (
        ".venv/bin/python",
        ".git/HEAD",
        "runs/demo/report.json",
        "tests/docker",
        "cli/lehrling/__pycache__/x.pyc",
    ):
        assert ignored(path), path


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_room_is_in_the_image(path: Path) -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    copied = {source for rest in values(path, "COPY") for source in rest.split()[:-1]}
    for room in workspace["members"]:
        assert {f"{room}/pyproject.toml", f"{room}/lehrling"} <= copied


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_entry_point_is_a_script_that_the_packages_install(path: Path) -> None:
    scripts = tomllib.loads((ROOT / "cli" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert json.loads(values(path, "ENTRYPOINT")[-1])[0] in scripts


def test_the_pinned_uv_understands_the_lock() -> None:
    pinned = re.search(r"uv==(\d+\.\d+)", values(ROOT / "docker" / "core.Dockerfile", "RUN")[1])
    assert pinned is not None
    required = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["version"]
    assert (required, pinned[1] >= "0.13") == (1, True)


def test_the_compose_file_fits_its_schema() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))
    assert done.returncode == 0, done.stdout


def test_every_service_is_confined() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["user"] == "10001:10001", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert "privileged" not in service, name
        assert service["network_mode"] == "none", name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_every_service_is_built_from_a_stage_that_exists() -> None:
    for name, service in services().items():
        dockerfile = ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]
        assert service["build"]["target"] in stages(dockerfile.resolve()), name
        assert ":latest" not in service["image"]


def test_every_service_runs_a_command_that_exists() -> None:
    for name, service in services().items():
        if service["command"] != ["--help"]:
            assert check_command_line(" ".join(["lehrling", *service["command"]])) == name
