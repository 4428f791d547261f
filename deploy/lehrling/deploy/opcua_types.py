"""Builds the types of `opcua_model` in a server, and instances of them with every mandatory part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from lehrling.datasets.errors import InputError
from lehrling.deploy.opcua_model import (
    DEVICE_SET,
    DI,
    ENUMERATIONS,
    OBJECT_TYPES,
    REFERENCE_TYPES,
    ROBOTICS,
    Kind,
    ObjectType,
    Part,
    Rule,
)
from lehrling.deploy.opcua_nodes import Builder, standard

IDS = ObjectIds
RULES: Mapping[Rule, int] = {
    Rule.MANDATORY: IDS.ModellingRule_Mandatory,
    Rule.OPTIONAL: IDS.ModellingRule_Optional,
    Rule.MANDATORY_PLACEHOLDER: IDS.ModellingRule_MandatoryPlaceholder,
    Rule.OPTIONAL_PLACEHOLDER: IDS.ModellingRule_OptionalPlaceholder,
}
STANDARD_TYPES: Mapping[str, int] = {"BaseObject": IDS.BaseObjectType, "Folder": IDS.FolderType}
VARIABLE_TYPES: Mapping[Kind, int] = {
    Kind.VARIABLE: IDS.BaseDataVariableType,
    Kind.ANALOG: IDS.AnalogUnitType,
    Kind.PROPERTY: IDS.PropertyType,
}
DATA_TYPES: Mapping[str, tuple[int, ua.VariantType]] = {
    "BaseData": (IDS.BaseDataType, ua.VariantType.Null),
    "Boolean": (IDS.Boolean, ua.VariantType.Boolean),
    "Byte": (IDS.Byte, ua.VariantType.Byte),
    "UInt16": (IDS.UInt16, ua.VariantType.UInt16),
    "UInt32": (IDS.UInt32, ua.VariantType.UInt32),
    "Double": (IDS.Double, ua.VariantType.Double),
    "String": (IDS.String, ua.VariantType.String),
    "LocalizedText": (IDS.LocalizedText, ua.VariantType.LocalizedText),
    "EUInformation": (IDS.EUInformation, ua.VariantType.ExtensionObject),
}
NODESET_BYTES_MAX = 16 << 20
NOT_CONNECTED = ua.StatusCode(ua.UInt32(StatusCodes.BadNotConnected))


def absent() -> ua.DataValue:
    """Return what a variable says that nothing feeds."""
    return ua.DataValue(ua.Variant(None, ua.VariantType.Null), StatusCode=NOT_CONNECTED)


@dataclass
class Space:
    """The namespaces of a server, and the types in them.

    Attributes:
        own: index of the cell's own namespace, in which instances lie, with text as node ids.
        nodes: instances by path, such as `MotionDeviceSystem/MotionDevices/robot`.
        kinds: the variant types of the instances' variables.
    """

    builder: Builder
    indexes: Mapping[str, int]
    own: int
    nodes: dict[str, ua.NodeId] = field(default_factory=dict)
    kinds: dict[str, ua.VariantType] = field(default_factory=dict)
    _types: dict[str, ua.NodeId] = field(default_factory=dict)

    @classmethod
    async def make(cls, server: Server, own: str, nodesets: Sequence[Path] = ()) -> Space:
        """Register the namespaces and build the types, or take them from the official files.

        Raises:
            InputError: a file is no NodeSet, or lacks a type.
        """
        for path in nodesets:
            await _import(server, path)
        indexes = {
            "DI": await server.register_namespace(DI),
            "R": await server.register_namespace(ROBOTICS),
        }
        space = cls(Builder(server), indexes, await server.register_namespace(own))
        if nodesets:
            space._find_types(server, nodesets)
        else:
            await space._add_types()
        return space

    def qualified(self, name: str) -> ua.QualifiedName:
        """Return a browse name of the table, such as `DI:Model`."""
        before, _, after = name.rpartition(":")
        return ua.QualifiedName(after, ua.UInt16(self.indexes[before] if before else 0))

    def type_id(self, name: str) -> ua.NodeId:
        """Return the node id of an object, data or reference type of the table."""
        if name in STANDARD_TYPES:
            return standard(STANDARD_TYPES[name])
        if name in DATA_TYPES:
            return standard(DATA_TYPES[name][0])
        return self._types[name]

    def text_id(self, path: str) -> ua.NodeId:
        """Return the node id of an instance."""
        return ua.NodeId(ua.String(path), ua.Int16(self.own))

    # --- types ----------------------------------------------------------------------------------------------------------

    def _number(self, number: int, namespace: int) -> ua.NodeId:
        return ua.NodeId(ua.Int32(number), ua.Int16(namespace))

    def _named(self, number: int, name: str) -> ua.NodeId:
        node = self._number(number, self.indexes[name.partition(":")[0]])
        self._types[name] = node
        return node

    def _find_types(self, server: Server, nodesets: Sequence[Path]) -> None:
        numbers = {each.name: each.number for each in OBJECT_TYPES}
        numbers |= {name: number for number, name, _, _ in ENUMERATIONS}
        numbers |= {name: number for number, name, _ in REFERENCE_TYPES}
        for name, number in numbers.items():
            if self._named(number, name) not in server.iserver.aspace:
                files = " and ".join(map(str, nodesets))
                raise InputError(f"Expected the type {name} in {files}; give the files of DI, then of Robotics 1.01.")

    async def _add_types(self) -> None:
        for number, name, strings, words in ENUMERATIONS:
            node = await self.builder.add_data_type(
                self._named(number, name), self.qualified(name), standard(IDS.Enumeration)
            )
            texts = ua.DataValue(ua.Variant([ua.LocalizedText(word) for word in words], ua.VariantType.LocalizedText))
            added = await self.builder.add_variable(
                self._number(strings, node.NamespaceIndex),
                ua.QualifiedName("EnumStrings", ua.UInt16(0)),
                node,
                texts,
                standard(IDS.LocalizedText),
                IDS.PropertyType,
            )
            await self._rule(added, Rule.MANDATORY)
        for number, name, inverse in REFERENCE_TYPES:
            base = standard(IDS.HierarchicalReferences)
            await self.builder.add_reference_type(self._named(number, name), self.qualified(name), base, inverse)
        for type_ in OBJECT_TYPES:
            await self._add_type(type_)
        await self.builder.add_object(
            self._number(DEVICE_SET, self.indexes["DI"]),
            self.qualified("DI:DeviceSet"),
            standard(IDS.ObjectsFolder),
            standard(IDS.BaseObjectType),
            IDS.Organizes,
        )

    async def _add_type(self, type_: ObjectType) -> None:
        node = await self.builder.add_object_type(
            self._named(type_.number, type_.name),
            self.qualified(type_.name),
            self.type_id(type_.base),
            abstract=type_.abstract,
        )
        for part in type_.parts:
            await self._add_part(part, node, node.NamespaceIndex)

    async def _add_part(self, part: Part, parent: ua.NodeId, namespace: int) -> None:
        node = await self._add_node(part, self._number(part.number, namespace), self.qualified(part.name), parent)
        await self._rule(node, part.rule)
        for inner in part.parts:
            await self._add_part(inner, node, namespace)

    async def _add_node(self, part: Part, node: ua.NodeId, name: ua.QualifiedName, parent: ua.NodeId) -> ua.NodeId:
        if part.kind is Kind.OBJECT:
            return await self.builder.add_object(node, name, parent, self.type_id(part.type))
        return await self.builder.add_variable(
            node, name, parent, absent(), self.type_id(part.type), VARIABLE_TYPES[part.kind]
        )

    async def _rule(self, node: ua.NodeId, rule: Rule) -> None:
        await self.builder.refer(node, standard(IDS.HasModellingRule), standard(RULES[rule]))

    # --- instances ------------------------------------------------------------------------------------------------------

    async def add_instance(
        self,
        type_: str,
        path: str,
        parent: ua.NodeId,
        optional: Collection[str] = (),
        reference: int = IDS.HasComponent,
    ) -> ua.NodeId:
        """Add an instance, named by its path's last word, with its mandatory parts and the optional ones that are named."""
        name = ua.QualifiedName(path.rpartition("/")[2], ua.UInt16(self.own))
        node = await self.builder.add_object(self.text_id(path), name, parent, self.type_id(type_), reference)
        self.nodes[path] = node
        for part in _parts(type_):
            await self._instantiate(part, path, node, optional)
        return node

    async def _instantiate(self, part: Part, above: str, parent: ua.NodeId, optional: Collection[str]) -> None:
        if part.rule is Rule.OPTIONAL and part.name not in optional:
            return
        if part.rule in (Rule.MANDATORY_PLACEHOLDER, Rule.OPTIONAL_PLACEHOLDER):
            return
        path = f"{above}/{part.name.rpartition(':')[2]}"
        self.nodes[path] = await self._add_node(part, self.text_id(path), self.qualified(part.name), parent)
        if part.kind is not Kind.OBJECT:
            self.kinds[path] = DATA_TYPES.get(part.type, (0, ua.VariantType.Int32))[1]
        for inner in part.parts:
            await self._instantiate(inner, path, self.nodes[path], optional)

    async def write(self, path: str, value: object) -> None:
        """Write an instance's variable; None says that nothing feeds it."""
        told = absent() if value is None else ua.DataValue(ua.Variant(value, self.kinds[path]))
        await self.builder.write(self.nodes[path], told)

    async def refer(self, source: str, reference: str, target: str) -> None:
        """Add a reference of the table between two instances."""
        await self.builder.refer(self.nodes[source], self.type_id(reference), self.nodes[target])


async def _import(server: Server, path: Path) -> None:
    """Load a NodeSet, without making code of its data types, which asyncua would execute."""
    try:
        if path.stat().st_size > NODESET_BYTES_MAX:
            raise InputError(f"{path} is larger than {NODESET_BYTES_MAX} bytes; that is no NodeSet of DI or Robotics.")
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise InputError(f"{path} declares XML entities, which no NodeSet does.")
        await server.import_xml(xmlstring=content.decode(), auto_load_definitions=False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"Expected an OPC UA NodeSet (XML) at {path}: {type(error).__name__}: {error}.") from error


def _parts(type_: str) -> list[Part]:
    """Return the parts of a type, with those of its base types that it does not name anew."""
    found: dict[str, Part] = {}
    by_name = {each.name: each for each in OBJECT_TYPES}
    while type_ in by_name:
        for part in by_name[type_].parts:
            found.setdefault(part.name, part)
        type_ = by_name[type_].base
    return list(found.values())
