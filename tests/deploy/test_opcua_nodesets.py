"""What a cell shows of OPC 40010-1, compared node by node with the OPC Foundation's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from cell_nodesets import (
    CORE,
    MANDATORY,
    MANDATORY_PLACEHOLDER,
    OPTIONAL_PLACEHOLDER,
    Entry,
    built,
    files,
    official,
)
from cell_rig import cell_config, serving

from lehrling.datasets.errors import InputError
from lehrling.deploy.opcua_model import DI, ROBOTICS

OWN = "urn:own"
PLACEHOLDERS = (MANDATORY_PLACEHOLDER, OPTIONAL_PLACEHOLDER)


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Entry]:
    return official()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Entry]:
    return built(cell_config(tmp_path_factory.mktemp("cell")))


def children(nodes: Mapping[str, Entry], parent: str) -> dict[str, str]:
    """Return a node's parts: name → id."""
    return {entry.name: key for key, entry in nodes.items() if parent in {above for _, above in entry.parents}}


def declared(nodes: Mapping[str, Entry], type_: str) -> dict[str, str]:
    """Return the parts that a type and its bases declare: name → id of the nearest declaration."""
    found: dict[str, str] = {}
    while type_ in nodes:
        found = children(nodes, type_) | found
        type_ = nodes[type_].base
    return found


def test_every_type_node_is_as_in_the_official_files(reference: Mapping[str, Entry], ours: Mapping[str, Entry]) -> None:
    types = {key: entry for key, entry in ours.items() if key.startswith((DI, ROBOTICS))}
    assert len(types) > 90
    for key, entry in types.items():
        assert key in reference, f"{key} ({entry.name}) is in no official file"
        told = reference[key]
        assert (entry.name, entry.kind, entry.data_type, entry.type_, entry.rule, entry.base) == (
            told.name,
            told.kind,
            told.data_type,
            told.type_,
            told.rule,
            told.base,
        ), key
        assert entry.parents & told.parents or not told.parents, key
        assert entry.rank == told.rank, key
        if told.strings:
            assert entry.strings == told.strings, key


def test_every_mandatory_part_of_our_types_is_declared(
    reference: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> None:
    def missing(parent: str) -> list[str]:
        found = []
        for name, key in children(reference, parent).items():
            rule = reference[key].rule
            if rule in (MANDATORY, MANDATORY_PLACEHOLDER) and key not in ours:
                found.append(f"{name} of {parent}")
            elif key in ours and rule not in PLACEHOLDERS:
                found += missing(key)
        return found

    types = [key for key, entry in ours.items() if entry.kind == "ObjectType"]
    assert len(types) == 13
    assert [part for type_ in types for part in missing(type_)] == []


def test_every_instance_has_the_mandatory_parts_of_its_type(
    reference: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> None:
    instances = {key: entry for key, entry in ours.items() if key.startswith(OWN)}
    assert len(instances) > 60
    checked = 0
    for key, entry in instances.items():
        parts = {name: ours[part] for name, part in children(ours, key).items()}
        for name, part in declared(reference, entry.type_).items():
            told = reference[part]
            if told.rule == MANDATORY:
                assert name in parts, f"{key} lacks {name}"
                assert (parts[name].data_type, parts[name].type_) == (told.data_type, told.type_), f"{key} {name}"
                checked += 1
            elif told.rule == MANDATORY_PLACEHOLDER and not name.endswith("<ParameterIdentifier>"):
                assert any(each.type_ == told.type_ for each in parts.values()), f"{key} lacks {name}"
                checked += 1
    assert checked > 40


def test_folders_of_placeholders_hold_what_they_should(
    reference: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> None:
    """A folder's placeholder is declared below the folder, not by the folder's type."""
    for key, entry in ours.items():
        folder = entry.type_ == f"{CORE}|61" and key.startswith((DI, ROBOTICS))
        for name, part in children(reference, key).items() if folder else ():
            if reference[part].rule != MANDATORY_PLACEHOLDER:
                continue
            held = [each for each in ours.values() if each.type_ == reference[part].type_ and each.rule == ""]
            assert held, f"nothing stands for {name} of {entry.name}"


def test_properties_are_properties_and_components_components(
    reference: Mapping[str, Entry], ours: Mapping[str, Entry]
) -> None:
    for key, entry in ours.items():
        if key.startswith(OWN) and entry.kind == "Variable":
            above = {target for kind, target in entry.parents if kind == f"{CORE}|46"}
            assert bool(above) == (entry.type_ == f"{CORE}|68"), key


def test_with_the_official_files_loaded_the_robot_looks_the_same(
    tmp_path: Path, ours: Mapping[str, Entry], reference: Mapping[str, Entry]
) -> None:
    config = cell_config(tmp_path, opcua={"nodesets": [str(path) for path in files()]})
    loaded = built(config)
    assert set(reference) <= set(loaded)
    for key, entry in ours.items():
        if key.startswith(OWN):
            assert loaded[key] == entry


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("no xml", "Expected an OPC UA NodeSet"),
        ("<?xml version='1.0'?><UANodeSet/>", "Expected an OPC UA NodeSet|Expected the type"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "declares XML entities"),
    ],
)
def test_a_file_that_is_no_nodeset_is_refused_before_anybody_is_served(
    tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "x.xml").write_text(content)
    with pytest.raises(InputError, match=problem), serving(tmp_path, opcua={"nodesets": ["x.xml", "x.xml"]}):
        pass
