"""Dockerfiles and compose file: linted, and cross-checked where the linters do not look."""

from __future__ import annotations

import json
import os
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
from launch_files import read_launch_file
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
CORE, ROS = (ROOT / "docker" / f"{name}.Dockerfile" for name in ("core", "ros"))
TRAINING = "training"
"""The room that the ROS image leaves out, with PyTorch."""
COMPOSE = ROOT / "docker" / "compose.yaml"
COMPOSE_SCHEMA = "vendor.compose-spec"
ROBOT = "recorder"
"""The one service that has to reach a robot."""


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return (INSTRUCTION, rest) with continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def values(path: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(path) if instruction == name]


def final(path: Path, name: str) -> list[str]:
    """Return the values of an instruction in the last stage, the one that becomes the image."""
    found = instructions(path)
    last = max(k for k, (instruction, _) in enumerate(found) if instruction == "FROM")
    return [rest for instruction, rest in found[last:] if instruction == name]


def assignments(lines: list[str]) -> dict[str, str]:
    """Return KEY=VALUE pairs, as ENV and LABEL write them."""
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def project(room: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / room / "pyproject.toml").read_text(encoding="utf-8"))


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


def matcher(pattern: str) -> re.Pattern[str]:
    """Return Docker's reading of a pattern: `*` stays within one folder, `**/` spans any number of them."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(part, re.escape(part)) for part in parts))


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last pattern that matches it or a parent decides."""
    parts = Path(path).parts
    itself_and_parents = ["/".join(parts[: k + 1]) for k in range(len(parts))]
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = matcher(line.removeprefix("!"))
        if line and not line.startswith("#") and any(pattern.fullmatch(p) for p in itself_and_parents):
            out = not line.startswith("!")
    return out


def cpus_and_threads(service: dict[str, Any]) -> tuple[str, str]:
    return str(service["cpus"]), str(service["environment"]["OMP_NUM_THREADS"])


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return tool_at(Path(sys.executable).with_name(name), *arguments)


def tool_at(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the services that run an image."""
    return {name: s for name, s in services().items() if s["build"]["dockerfile"] == str(path.relative_to(ROOT))}


def test_there_is_an_image_without_and_one_with_ros() -> None:
    assert DOCKERFILES == [CORE, ROS]
    assert all(services_of(path) for path in DOCKERFILES)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = tool("hadolint", str(path))
    assert done.returncode == 0, done.stdout


def test_hadolint_would_notice_a_floating_base(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian\nRUN apt-get install -y git\n", encoding="utf-8")
    assert tool("hadolint", str(wrong)).returncode != 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_base_is_pinned_to_a_full_version_and_a_debian_release_or_to_a_ros_and_an_ubuntu(path: Path) -> None:
    version = r"\S+:\d+\.\d+\.\d+-(slim-)?(bookworm|trixie)"
    for base in stages(path).values():
        assert re.fullmatch(rf"({version}|ros:kilted-ros-base-noble)(@sha256:[0-9a-f]{{64}})?", base), base


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_runs_as_the_user_it_makes_and_not_as_root(path: Path) -> None:
    (user,) = final(path, "USER")
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user)
    made = " ".join(final(path, "RUN"))
    assert f"useradd --uid {user.split(':')[0]} --gid {user.split(':')[1]} --create-home" in made


def test_the_health_check_is_a_command_that_loads_the_physics_engine() -> None:
    (health,) = final(CORE, "HEALTHCHECK")
    command = json.loads(health.split("CMD ", 1)[1])
    assert command[0] == "lehrling"
    check_command_line(shlex.join(command))
    code = f"""import sys
from lehrling.cli.main import run
try:
    run({command[1:]!r})
except SystemExit as done:
    sys.exit(done.code or int("pybullet" not in sys.modules) * 9)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_health_check_of_the_ros_image_loads_the_recorder() -> None:
    (health,) = final(ROS, "HEALTHCHECK")
    entry, *command = json.loads(health.split("CMD ", 1)[1])
    assert [entry] == json.loads(final(ROS, "ENTRYPOINT")[0]), "which sources ROS"
    assert command[0] == "python3"
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_names_a_user_for_any_uid_and_downloads_nothing_unasked() -> None:
    environment = assignments(final(CORE, "ENV"))
    assert environment["USER"]
    assert (environment["HF_HUB_OFFLINE"], environment["HF_HUB_DISABLE_TELEMETRY"]) == ("1", "1")


@pytest.mark.parametrize(("path", "variable"), [(CORE, "UV_PROJECT_ENVIRONMENT"), (ROS, "VIRTUAL_ENV")])
def test_the_environment_that_is_built_comes_first(path: Path, variable: str) -> None:
    made = assignments(values(path, "ENV"))[variable]
    assert assignments(final(path, "ENV"))["PATH"].split(":")[0] == f"{made}/bin"
    assert f"--from=build {made} {made}" in final(path, "COPY")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_copied_path_exists_and_reaches_the_build(path: Path) -> None:
    for rest in values(path, "COPY"):
        words = [word for word in rest.split() if not word.startswith("--")]
        stage = re.search(r"--from=(\S+)", rest)
        if stage is not None:
            assert stage[1] in stages(path)
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source


def test_the_build_gets_code_and_weights_but_no_environment_and_no_history() -> None:
    bases = [str(p.relative_to(ROOT)) for p in (ROOT / "training/lehrling/training/bases").rglob("*.safetensors")]
    assert bases
    for path in (*bases, "cli/lehrling/cli/main.py", "uv.lock"):
        assert (ROOT / path).is_file()
        assert not ignored(path), path
    for path in (
        ".venv/bin/python",
        ".git/HEAD",
        "runs/demo/report.json",
        "tests/docker",
        "cli/lehrling/__pycache__/x.pyc",
    ):
        assert ignored(path), path


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_every_room_is_in_the_image_and_only_the_ros_image_leaves_training_out(path: Path) -> None:
    workspace = project(".")["tool"]["uv"]["workspace"]
    copied = {source for rest in values(path, "COPY") for source in rest.split()[:-1]}
    left_out = {TRAINING} if path == ROS else set()
    for room in workspace["members"]:
        assert f"{room}/pyproject.toml" in copied, "the lock is of all rooms"
        assert (f"{room}/lehrling" in copied) == (room not in left_out)


def test_the_entry_point_is_a_script_that_the_packages_install() -> None:
    (entry,) = final(CORE, "ENTRYPOINT")
    assert json.loads(entry)[0] in project("cli")["project"]["scripts"]


def test_the_ros_image_takes_the_lock_s_packages_without_training_and_torch(tmp_path: Path) -> None:
    (run,) = [rest for rest in values(ROS, "RUN") if "uv export" in rest]
    export = shlex.split(run.split(" && ")[0])
    assert export[export.index("--prune") + 1] == project(TRAINING)["project"]["name"]
    wanted = tmp_path / "requirements.txt"
    export[export.index("--output-file") + 1] = str(wanted)
    done = tool_at(ROOT / ".uv" / "bin" / "uv", *export[1:])
    assert done.returncode == 0, done.stderr
    listed = wanted.read_text(encoding="utf-8")
    packages = {line.split("==")[0] for line in listed.splitlines() if "==" in line}
    assert {"zarr", "pybullet", "typer"} <= packages
    assert not {"torch", "transformers", "peft", "ros-kilted-rclpy"} & packages
    assert all("--hash=" in block for block in listed.split("\n\n") if "==" in block)


def test_every_room_is_installed_after_its_packages_and_from_the_folders_that_were_copied() -> None:
    (run,) = [rest for rest in values(ROS, "RUN") if "--no-deps" in rest]
    rooms = {word.removeprefix("./") for word in shlex.split(run) if word.startswith("./")}
    assert rooms == set(project(".")["tool"]["uv"]["workspace"]["members"]) - {TRAINING}


def test_the_entry_point_of_the_ros_image_sources_what_was_built_and_runs_the_command(tmp_path: Path) -> None:
    script = ROOT / "docker" / "ros-entrypoint.sh"
    (copied,) = [rest for rest in final(ROS, "COPY") if script.name in rest]
    assert json.loads(final(ROS, "ENTRYPOINT")[0]) == [Path(copied.split()[-1]).name]
    (built,) = re.findall(r"--install-base (\S+)", " ".join(values(ROS, "RUN")))
    assert f"--from=build {built} {built}" in final(ROS, "COPY")
    moved = script.read_text(encoding="utf-8").replace("/opt/", f"{tmp_path}/opt/")
    for prefix in ("opt/ros/kilted", built.removeprefix("/")):
        (tmp_path / prefix).mkdir(parents=True)
        (tmp_path / prefix / "setup.bash").write_text(f"export SEEN=$SEEN:{prefix}:$#\n", encoding="utf-8")
    command = ["/bin/bash", "-c", moved, "entry", "printenv", "SEEN"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"ROS_DISTRO": "kilted", "PATH": os.defpath}
    )
    assert done.stdout == f":opt/ros/kilted:1:{built.removeprefix('/')}:1\n", done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_pinned_uv_can_build_every_room_and_read_the_lock(path: Path) -> None:
    (pinned,) = re.findall(r"uv==(\S+)", " ".join(values(path, "RUN")))
    for room in project(".")["tool"]["uv"]["workspace"]["members"]:
        (backend,) = project(room)["build-system"]["requires"]
        assert pinned in Requirement(backend).specifier, room
    assert tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["version"] == 1


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_the_image_has_the_version_of_the_command(path: Path) -> None:
    version = project("cli")["project"]["version"]
    assert assignments(final(path, "LABEL"))["org.opencontainers.image.version"] == version
    assert {service["image"] for service in services_of(path).values()} == {f"lehrling/{path.stem}:{version}"}


def test_the_compose_file_fits_its_schema() -> None:
    done = tool("check-jsonschema", "--builtin-schema", COMPOSE_SCHEMA, str(COMPOSE))
    assert done.returncode == 0, done.stdout


def test_the_schema_would_notice_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("interval:", "intervall:"), encoding="utf-8")
    assert tool("check-jsonschema", "--builtin-schema", COMPOSE_SCHEMA, str(wrong)).returncode != 0


def test_every_service_is_confined() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["network_mode"] == ("host" if name == ROBOT else "none"), name
        assert service.get("ipc") == ("host" if name == ROBOT else None), name
        assert not {"privileged", "cap_add", "devices", "entrypoint"} & set(service), name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert any(str(mount).startswith("/tmp:") for mount in service["tmpfs"]), name


def test_no_service_can_take_the_machine() -> None:
    for name, service in services().items():
        assert 0 < service["pids_limit"] <= 4096, name
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert all(re.search(r":size=\d+[mg]\b", mount) for mount in service["tmpfs"]), name
        cpus, threads = cpus_and_threads(service)
        assert re.fullmatch(r"\d+|\$\{\w+:-\d+\}", cpus), name
        assert cpus == threads, name


def test_no_service_sees_a_folder_of_the_machine() -> None:
    named = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    for name, service in services().items():
        assert all(str(volume).split(":", 1)[0] in named for volume in service["volumes"]), name


def test_every_service_runs_a_stage_that_exists_as_the_user_of_the_image() -> None:
    for name, service in services().items():
        dockerfile = (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
        assert service["build"]["target"] in stages(dockerfile), name
        assert [service["user"]] == final(dockerfile, "USER"), name
        assert {str(volume).split(":")[1] for volume in service["volumes"]} == set(final(dockerfile, "VOLUME")), name


def test_every_service_runs_a_command_that_exists() -> None:
    for name, service in services_of(CORE).items():
        if service["command"] != ["--help"]:
            assert check_command_line(shlex.join(["lehrling", *service["command"]])) == name


def test_every_ros_service_launches_a_file_with_arguments_that_exist() -> None:
    for name, service in services_of(ROS).items():
        assert service["profiles"] == ["ros"]
        ros2, verb, package, file, *given = service["command"]
        assert (ros2, verb) == ("ros2", "launch")
        launched = read_launch_file(ROOT / "collection" / "ros" / package / "launch" / file)
        arguments = dict(word.split(":=", 1) for word in given)
        required = {key for key, default in launched.arguments.items() if default is None}
        assert required <= set(arguments) <= set(launched.arguments), name
        assert arguments["dataset"].startswith("/data/"), name


def test_every_service_is_asked_for_its_health_as_the_image_is() -> None:
    for name, service in services().items():
        dockerfile = (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve()
        (health,) = final(dockerfile, "HEALTHCHECK")
        assert service["healthcheck"]["test"] == ["CMD", *json.loads(health.split("CMD ", 1)[1])], name


def test_the_commands_of_the_docker_page_exist() -> None:
    page = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8").split("```console\n")[1].split("```")[0]
    prefix = "docker compose -f docker/compose.yaml run --rm "
    lines = page.splitlines()
    builds, runs = lines[: len(DOCKERFILES)], lines[len(DOCKERFILES) :]
    for path, build in zip(DOCKERFILES, builds, strict=True):
        image = next(iter(services_of(path).values()))["image"]
        assert build == f"docker build -f {path.relative_to(ROOT)} -t {image} ."
    assert len(runs) >= 2
    for line in runs:
        assert line.startswith(prefix)
        service, *arguments = shlex.split(line.removeprefix(prefix))
        if service in services_of(CORE):
            check_command_line(shlex.join(["lehrling", *(arguments or services()[service]["command"])]))
        else:
            assert service in services_of(ROS)
            assert not arguments or (arguments[0] == "lehrling" and check_command_line(shlex.join(arguments)))
