"""The OPC Foundation's NodeSet files, as plain tables, and a cell's address space to compare with them."""

from __future__ import annotations

import asyncio
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("asyncua")

from asyncua import ua
from asyncua.server.address_space import NodeData
from asyncua.ua.attribute_ids import AttributeIds

from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.cell_users import Users
from lehrling.deploy.opcua_robotics import RoboticsView
from lehrling.deploy.opcua_security import CellInternalServer, CellServer, CellUserManager
from lehrling.deploy.opcua_types import Space

FOLDER = Path(os.environ.get("LEHRLING_NODESETS", Path(__file__).parents[3] / "shared" / "data" / "opcua"))
FILES = ("Opc.Ua.Di.NodeSet2.xml", "Opc.Ua.Robotics.NodeSet2.xml")
NAMESPACE = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"
CORE = "http://opcfoundation.org/UA/"
HAS_TYPE, HAS_RULE, HAS_SUBTYPE = f"{CORE}|40", f"{CORE}|37", f"{CORE}|45"
MANDATORY, MANDATORY_PLACEHOLDER, OPTIONAL_PLACEHOLDER = f"{CORE}|78", f"{CORE}|11510", f"{CORE}|11508"


@dataclass
class Entry:
    """A node; ids are `namespace URI|identifier`, names `namespace URI|name`."""

    name: str
    kind: str
    data_type: str = ""
    rank: int = -1
    type_: str = ""
    rule: str = ""
    base: str = ""
    parents: set[tuple[str, str]] = field(default_factory=set)
    strings: tuple[str, ...] = ()


def files() -> tuple[Path, Path]:
    """Return the official files; skips the test where they are absent."""
    for name in FILES:
        if not (FOLDER / name).is_file():
            pytest.skip(f"the OPC Foundation's {name} is not at {FOLDER} (github.com/OPCFoundation/UA-Nodeset has it)")
    return FOLDER / FILES[0], FOLDER / FILES[1]


def official() -> Mapping[str, Entry]:
    """Return every node of the official files."""
    found: dict[str, Entry] = {}
    for path in files():
        found |= _read(ET.parse(path).getroot())
    return found


def _read(root: ET.Element) -> dict[str, Entry]:
    uris = [CORE, *(each.text or "" for each in root.find(f"{NAMESPACE}NamespaceUris") or ())]
    aliases = {each.get("Alias"): each.text for each in root.find(f"{NAMESPACE}Aliases") or ()}

    def id_of(text: str | None) -> str:
        told = aliases.get(text) or text or ""
        index, _, identifier = told.rpartition(";")
        return f"{uris[int(index.removeprefix('ns=') or 0)]}|{identifier.removeprefix('i=')}"

    found: dict[str, Entry] = {}
    for each in root:
        node, told = each.get("NodeId"), each.get("BrowseName", "")
        if node is None:
            continue
        index, name = told.split(":", 1) if told[:1].isdigit() else ("0", told)
        entry = Entry(f"{uris[int(index)]}|{name}", each.tag.removeprefix(f"{NAMESPACE}UA"))
        if entry.kind == "Variable":
            entry.data_type, entry.rank = id_of(each.get("DataType", "i=24")), int(each.get("ValueRank", -1))
            entry.strings = tuple(text.text or "" for text in each.iter() if text.tag.endswith("}Text"))
        for reference in each.iter(f"{NAMESPACE}Reference"):
            _take(
                entry,
                id_of(reference.get("ReferenceType")),
                id_of(reference.text),
                reference.get("IsForward") != "false",
            )
        found[id_of(node)] = entry
    return found


def _take(entry: Entry, reference: str, target: str, forward: bool) -> None:
    if forward and reference == HAS_TYPE:
        entry.type_ = target
    elif forward and reference == HAS_RULE:
        entry.rule = target
    elif not forward and reference == HAS_SUBTYPE:
        entry.base = target
    elif not forward:
        entry.parents.add((reference, target))


def built(config: CellConfig) -> dict[str, Entry]:
    """Return a cell's nodes outside OPC UA's own namespace."""
    return asyncio.run(_built(config))


async def _built(config: CellConfig) -> dict[str, Entry]:
    server = CellServer(CellInternalServer(CellUserManager(Users(()), None, lambda *_: None), 4))
    await server.init()
    space = await Space.make(server, "urn:own", config.opcua.nodesets or ())
    await RoboticsView(space, config).build()
    uris = await server.get_namespace_array()
    nodes = server.iserver.aspace
    every = list(nodes.keys())
    keys = [key for key in every if key.NamespaceIndex > 1]
    return {_id(key, uris): _entry(nodes[key], uris) for key in keys}


def _id(node: ua.NodeId, uris: list[str]) -> str:
    return f"{uris[node.NamespaceIndex]}|{node.Identifier!s}"


def _entry(node: NodeData, uris: list[str]) -> Entry:
    def value(attribute: AttributeIds) -> object:
        kept = node.attributes[attribute].value
        assert kept is not None
        return kept.Value.Value if kept.Value is not None else None

    name, kind = value(AttributeIds.BrowseName), value(AttributeIds.NodeClass)
    assert isinstance(kind, int)
    assert isinstance(name, ua.QualifiedName)
    entry = Entry(f"{uris[name.NamespaceIndex]}|{name.Name}", ua.NodeClass(kind).name)
    if entry.kind == "Variable":
        data_type, rank = value(AttributeIds.DataType), value(AttributeIds.ValueRank)
        assert isinstance(data_type, ua.NodeId)
        assert isinstance(rank, int)
        entry.data_type, entry.rank = _id(data_type, uris), rank
        texts = value(AttributeIds.Value)
        if isinstance(texts, list):
            entry.strings = tuple(str(text.Text) for text in texts if isinstance(text, ua.LocalizedText))
    for reference in node.references:
        _take(entry, _id(reference.ReferenceTypeId, uris), _id(reference.NodeId, uris), reference.IsForward)
    return entry
