"""What colcon installs: executables for `ros2 run`, launch files and their configuration."""

from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped]

NAME = "lehrling_collection"
SHARE = f"share/{NAME}"


def files(folder: str, pattern: str) -> list[str]:
    """Return the files of a folder, relative to this one, where setuptools wants them."""
    return [f"{folder}/{path.name}" for path in sorted(Path(__file__).parent.joinpath(folder).glob(pattern))]


setup(
    # Not the ROS package's name, which Python takes for lehrling-collection's: `-` and `_` are the same to it.
    name="lehrling-collection-ros",
    version="0.1.0",
    description="Executables and launch files of lehrling-collection.",
    license="Apache-2.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", files("launch", "*.launch.xml")),
        (f"{SHARE}/config", files("config", "*.yaml")),
    ],
    install_requires=["setuptools", "lehrling-collection"],
    zip_safe=True,
    entry_points={
        "console_scripts": [
            f"recorder = {NAME}.executables:recorder",
            f"teleop = {NAME}.executables:teleop",
            f"replay = {NAME}.executables:replay",
            f"policy = {NAME}.executables:policy",
        ]
    },
)
