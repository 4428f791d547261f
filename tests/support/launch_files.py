"""Read XML launch files as `launch_xml` would, as far as Lehrling's go: other tags and attributes are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

ATTRIBUTES = {
    "launch": set[str](),
    "arg": {"name", "default", "description", "value"},
    "include": {"file", "if", "unless"},
    "executable": {"cmd", "name", "output", "if", "unless"},
    "node": {"pkg", "exec", "name", "output", "emulate_tty", "args"},
    "param": {"name", "value", "type", "from"},
    "remap": {"from", "to"},
}
CHILDREN = {"launch": {"arg", "include", "executable", "node"}, "include": {"arg"}, "node": {"param", "remap"}}
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
SHARE = "$(find-pkg-share lehrling_collection)/"
VARIABLE = re.compile(r"\$\(var (\w+)\)")


@dataclass(frozen=True)
class Node:
    """A node that a launch file starts: parameter -> type, and the parameter files."""

    package: str
    executable: str
    parameters: dict[str, str]
    files: tuple[str, ...]


@dataclass(frozen=True)
class LaunchFile:
    """A launch file's content.

    Attributes:
        arguments: name -> default, None where it must be given.
        includes: file and the arguments that it is given.
    """

    path: Path
    arguments: dict[str, str | None] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    includes: list[tuple[str, set[str]]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def filled(self, text: str) -> str:
        """Fill defaults in, a word where there is none."""
        return VARIABLE.sub(lambda match: self.arguments[match[1]] or "word", text)


def walk(element: ET.Element) -> Iterator[ET.Element]:
    """Yield all elements; refuse tags and attributes that launch_xml does not know, or that no file here should need."""
    extra = set(element.attrib) - ATTRIBUTES[element.tag]
    assert not extra, f"<{element.tag}> has {extra}"
    yield element
    for child in element:
        assert child.tag in CHILDREN.get(element.tag, ()), f"<{child.tag}> in <{element.tag}>"
        yield from walk(child)


def read_launch_file(path: Path) -> LaunchFile:
    """Read a launch file."""
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.tag == "launch"
    content = LaunchFile(path)
    for element in walk(root):
        content.used.update(name for text in element.attrib.values() for name in VARIABLE.findall(text))
    for element in root:
        if element.tag == "arg":
            assert element.get("description"), element.get("name")
            content.arguments[element.attrib["name"]] = element.get("default")
        elif element.tag == "executable":
            content.commands.append(element.attrib["cmd"])
        elif element.tag == "include":
            content.includes.append((element.attrib["file"], {arg.attrib["name"] for arg in element}))
        else:
            content.nodes.append(_node(element))
    return content


def _node(element: ET.Element) -> Node:
    params = element.findall("param")
    return Node(
        element.attrib["pkg"],
        element.attrib["exec"],
        {param.attrib["name"]: param.attrib["type"] for param in params if "name" in param.attrib},
        tuple(param.attrib["from"] for param in params if "from" in param.attrib),
    )
