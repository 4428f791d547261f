"""The ROS package: what its launch files name exists, with the type that it has in the node, and colcon builds it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from command_lines import check_command_line
from launch_files import SHARE, TYPES, LaunchFile, Node, read_launch_file

ROOT = Path(__file__).parents[2]
NAME = "lehrling_collection"
PACKAGE = ROOT / "collection" / "ros" / NAME
COLCON = ROOT / ".venvs" / "colcon" / "bin" / "colcon"
LAUNCH_FILES = {path.name: read_launch_file(path) for path in sorted((PACKAGE / "launch").iterdir())}
NODES = [(name, node) for name, file in LAUNCH_FILES.items() for node in file.nodes]


def scripts() -> dict[str, str]:
    """Return executable -> the module that it runs, from setup.py and executables.py."""
    source = (PACKAGE / "setup.py").read_text(encoding="utf-8").replace('f"', '"').replace("{NAME}", NAME)
    points = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    entries = dict(point.split(" = ") for point in points if isinstance(point, str) and " = " in point)
    functions = ast.parse((PACKAGE / NAME / "executables.py").read_text(encoding="utf-8")).body
    runs = {f.name: ast.unparse(f.body[-1]) for f in functions if isinstance(f, ast.FunctionDef)}
    return {name: runs[entry.split(":")[1]].split("'")[1] for name, entry in entries.items()}


def module(executable: str) -> Any:
    """Return the module that an executable runs."""
    name = scripts()[executable]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not written yet")
    return importlib.import_module(name)


def parameters(executable: str) -> dict[str, Any]:
    """Return a node's parameters with their defaults, as the node declares them."""
    found: dict[str, Any] = module(executable).PARAMETERS
    return found


def configuration(file: LaunchFile, node: Node) -> dict[str, Any] | None:
    """Return the parameters of a node's configuration files, None where they are the user's."""
    merged: dict[str, Any] = {}
    for name in map(file.filled, node.files):
        if not name.startswith(SHARE):
            return None
        content = yaml.safe_load((PACKAGE / name.removeprefix(SHARE)).read_text(encoding="utf-8"))
        assert list(content) == ["/**"]
        assert list(content["/**"]) == ["ros__parameters"]
        merged |= content["/**"]["ros__parameters"]
    return merged


def test_the_package_is_for_ament_python_and_has_no_pyproject() -> None:
    root = ET.fromstring((PACKAGE / "package.xml").read_bytes())
    assert (root.findtext("name"), root.findtext("export/build_type")) == (NAME, "ament_python")
    assert not (PACKAGE / "pyproject.toml").exists(), "colcon takes the package for another kind with one"
    assert (PACKAGE / "resource" / NAME).is_file()


def test_versions_are_those_of_the_distribution() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "collection" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert ET.fromstring((PACKAGE / "package.xml").read_bytes()).findtext("version") == version
    assert f'version="{version}"' in (PACKAGE / "setup.py").read_text(encoding="utf-8")


def test_python_does_not_take_the_package_for_the_distribution() -> None:
    setup = (PACKAGE / "setup.py").read_text(encoding="utf-8")
    assert 'name="lehrling-collection-ros"' in setup, (
        "`lehrling_collection` and `lehrling-collection` are one name to Python"
    )


@pytest.mark.parametrize("executable", ["recorder", "teleop", "replay", "policy"])
def test_every_executable_runs_a_module_that_has_a_main(executable: str) -> None:
    assert callable(module(executable).main)


@pytest.mark.parametrize(("name", "node"), NODES, ids=[f"{name}-{node.executable}" for name, node in NODES])
def test_every_node_is_an_executable_of_the_package(name: str, node: Node) -> None:
    assert node.package == NAME
    assert node.executable in scripts()


def test_every_executable_has_a_launch_file() -> None:
    assert {node.executable for _, node in NODES} == set(scripts())


@pytest.mark.parametrize(("name", "node"), NODES, ids=[f"{name}-{node.executable}" for name, node in NODES])
def test_every_parameter_exists_with_its_type(name: str, node: Node) -> None:
    declared = parameters(node.executable)
    for parameter, kind in node.parameters.items():
        assert parameter in declared, f"{name}: {parameter}"
        assert type(declared[parameter]) is TYPES[kind], f"{name}: {parameter}"


@pytest.mark.parametrize(("name", "node"), NODES, ids=[f"{name}-{node.executable}" for name, node in NODES])
def test_the_configuration_has_the_other_parameters_with_their_defaults(name: str, node: Node) -> None:
    declared, configured = parameters(node.executable), configuration(LAUNCH_FILES[name], node)
    if configured is None:
        assert not node.parameters, "all come from the user's file"
        return
    assert not set(configured) & set(node.parameters), "one place for each"
    assert set(configured) | set(node.parameters) == set(declared)
    for parameter, value in configured.items():
        assert (type(value), value) == (type(declared[parameter]), declared[parameter]), f"{name}: {parameter}"


@pytest.mark.parametrize(("name", "node"), NODES, ids=[f"{name}-{node.executable}" for name, node in NODES])
def test_an_argument_s_default_is_the_node_s(name: str, node: Node) -> None:
    declared, file = parameters(node.executable), LAUNCH_FILES[name]
    for parameter in node.parameters:
        default = file.arguments[parameter]
        assert default is None or default == str(declared[parameter]), f"{name}: {parameter}"


@pytest.mark.parametrize("file", LAUNCH_FILES.values(), ids=LAUNCH_FILES)
def test_every_variable_is_an_argument_and_every_argument_is_used(file: LaunchFile) -> None:
    assert file.used == set(file.arguments)


@pytest.mark.parametrize("file", LAUNCH_FILES.values(), ids=LAUNCH_FILES)
def test_every_command_and_every_included_file_exists(file: LaunchFile) -> None:
    for command in file.commands:
        check_command_line(file.filled(command))
    for path, given in file.includes:
        assert path.startswith(f"{SHARE}launch/")
        included = LAUNCH_FILES[path.removeprefix(f"{SHARE}launch/")]
        required = {name for name, default in included.arguments.items() if default is None}
        assert required <= given <= set(included.arguments)


@pytest.mark.parametrize("file", LAUNCH_FILES.values(), ids=LAUNCH_FILES)
def test_every_call_in_a_comment_gives_arguments_that_exist(file: LaunchFile) -> None:
    lines = [line.split() for line in file.path.read_text(encoding="utf-8").splitlines()]
    calls = [[w for w in words if w != "-->"] for words in lines if words[:3] == ["ros2", "launch", NAME]]
    assert calls
    for _, _, _, name, *given in calls:
        arguments = dict(word.split(":=") for word in given)
        required = {key for key, default in LAUNCH_FILES[name].arguments.items() if default is None}
        assert required <= set(arguments) <= set(LAUNCH_FILES[name].arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package with PyPI's colcon, as a user's workspace would; return the install folder."""
    if not COLCON.is_file():
        pytest.fail(f"There is no colcon at {COLCON}; run `make setup`.")
    folder = tmp_path_factory.mktemp("workspace")
    before = sorted(PACKAGE.rglob("*"))
    command = [str(COLCON), "--log-base", str(folder / "log"), "build", "--base-paths", str(PACKAGE.parent)]
    done = subprocess.run(
        [*command, "--build-base", str(folder / "build"), "--install-base", str(folder / "install")],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(PACKAGE.rglob("*")) == before, "the source folder stays as it was"
    return folder / "install"


def test_colcon_installs_what_ros_looks_for(built: Path) -> None:
    prefix = built / NAME
    assert (prefix / "share/ament_index/resource_index/packages" / NAME).is_file()
    assert (prefix / f"share/{NAME}/package.xml").read_bytes() == (PACKAGE / "package.xml").read_bytes()
    for folder in ("launch", "config"):
        installed = {path.name: path.read_bytes() for path in (prefix / f"share/{NAME}" / folder).iterdir()}
        assert installed == {path.name: path.read_bytes() for path in (PACKAGE / folder).iterdir()}
    assert {path.name for path in (prefix / "lib" / NAME).iterdir()} == set(scripts())
    hooks = [path.name for path in (prefix / f"share/{NAME}/hook").iterdir()]
    assert "ament_prefix_path.sh" in hooks, "colcon took it for a ROS package"


def run_installed(built: Path, executable: str, path: str) -> subprocess.CompletedProcess[str]:
    """Source the workspace and run an executable with a PATH, in an environment that has nothing else."""
    script = f'. ./setup.sh && exec "{NAME}/lib/{NAME}/{executable}"'
    environment = {"PATH": path, "HOME": str(built), "ROS_LOCALHOST_ONLY": "1", "ROS_DOMAIN_ID": "93"}
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, cwd=built, env=environment, timeout=60
    )


def test_an_installed_executable_runs_the_node_with_the_python_that_comes_first(built: Path) -> None:
    done = run_installed(built, "recorder", f"{Path(sys.executable).parent}:{os.defpath}")
    assert done.returncode == 2, done.stderr
    assert "Expected the parameter 'dataset' of recorder" in done.stderr


def test_an_installed_policy_reads_its_parameters(built: Path) -> None:
    done = run_installed(built, "policy", f"{Path(sys.executable).parent}:{os.defpath}")
    assert done.returncode == 2, done.stderr
    assert "Expected the parameter 'embodiment' of policy" in done.stderr


@pytest.mark.parametrize(
    ("executable", "distribution"), [("recorder", "lehrling-collection"), ("policy", "lehrling-deploy[serve]")]
)
def test_without_the_distribution_an_executable_says_what_to_install(
    built: Path, executable: str, distribution: str
) -> None:
    done = run_installed(built, executable, f"{COLCON.parent}:{os.defpath}")
    assert done.returncode == 2
    assert f"pip install '{distribution}'" in done.stderr
    assert "Traceback" not in done.stderr
