"""Adds nodes to an OPC UA address space one by one, with the node ids that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds

OBJECT_IDS = ObjectIds
READ = 1 << ua.AccessLevel.CurrentRead.value
WRITE = 1 << ua.AccessLevel.CurrentWrite.value
Value = bool | int | float | str | ua.LocalizedText | ua.EUInformation | list[ua.LocalizedText] | list[ua.Argument]


def standard(number: int) -> ua.NodeId:
    """Return a node id of OPC UA itself."""
    return ua.NodeId(ua.Int32(number), ua.Int16(0))


class Builder:
    """Adds nodes below parents. Names are browse names; a display name equals it."""

    def __init__(self, server: Server) -> None:
        self._session = server.iserver.isession

    async def add_object(
        self,
        node: ua.NodeId,
        name: ua.QualifiedName,
        parent: ua.NodeId,
        type_: ua.NodeId,
        reference: int = OBJECT_IDS.HasComponent,
    ) -> ua.NodeId:
        """Add an object."""
        attributes = ua.ObjectAttributes(DisplayName=ua.LocalizedText(name.Name), EventNotifier=ua.Byte(0))
        return await self._add(node, name, parent, reference, ua.NodeClass.Object, attributes, type_)

    async def add_variable(
        self,
        node: ua.NodeId,
        name: ua.QualifiedName,
        parent: ua.NodeId,
        value: ua.DataValue,
        data_type: ua.NodeId,
        type_: int = OBJECT_IDS.BaseDataVariableType,
        *,
        writable: bool = False,
    ) -> ua.NodeId:
        """Add a variable, or a property where `type_` is that; its rank follows from the value."""
        access = ua.Byte(READ | WRITE if writable else READ)
        array = value.Value is not None and isinstance(value.Value.Value, list)
        rank = ua.ValueRank.OneDimension if array else ua.ValueRank.Scalar
        attributes = ua.VariableAttributes(
            DisplayName=ua.LocalizedText(name.Name),
            Value=value.Value or ua.Variant(),
            DataType=data_type,
            ValueRank=ua.Int32(rank),
            ArrayDimensions=[ua.UInt32(0)] if array else [],
            AccessLevel=access,
            UserAccessLevel=access,
        )
        reference = OBJECT_IDS.HasProperty if type_ == OBJECT_IDS.PropertyType else OBJECT_IDS.HasComponent
        added = await self._add(node, name, parent, reference, ua.NodeClass.Variable, attributes, standard(type_))
        await self.write(added, value)
        return added

    async def add_object_type(
        self, node: ua.NodeId, name: ua.QualifiedName, base: ua.NodeId, *, abstract: bool
    ) -> ua.NodeId:
        """Add an object type."""
        attributes = ua.ObjectTypeAttributes(DisplayName=ua.LocalizedText(name.Name), IsAbstract=abstract)
        return await self._add(node, name, base, OBJECT_IDS.HasSubtype, ua.NodeClass.ObjectType, attributes)

    async def add_data_type(self, node: ua.NodeId, name: ua.QualifiedName, base: ua.NodeId) -> ua.NodeId:
        """Add a data type."""
        attributes = ua.DataTypeAttributes(DisplayName=ua.LocalizedText(name.Name))
        return await self._add(node, name, base, OBJECT_IDS.HasSubtype, ua.NodeClass.DataType, attributes)

    async def add_reference_type(self, node: ua.NodeId, name: ua.QualifiedName, base: ua.NodeId, inverse: str) -> None:
        """Add a reference type."""
        attributes = ua.ReferenceTypeAttributes(
            DisplayName=ua.LocalizedText(name.Name), InverseName=ua.LocalizedText(inverse)
        )
        await self._add(node, name, base, OBJECT_IDS.HasSubtype, ua.NodeClass.ReferenceType, attributes)

    async def add_method(self, node: ua.NodeId, name: ua.QualifiedName, parent: ua.NodeId) -> ua.NodeId:
        """Add a method; its code and arguments are added by others."""
        attributes = ua.MethodAttributes(DisplayName=ua.LocalizedText(name.Name), Executable=True, UserExecutable=True)
        return await self._add(node, name, parent, OBJECT_IDS.HasComponent, ua.NodeClass.Method, attributes)

    async def refer(self, source: ua.NodeId, reference: ua.NodeId, target: ua.NodeId) -> None:
        """Add a reference in both directions."""
        items = []
        for start, end, forward in ((source, target, True), (target, source, False)):
            item = ua.AddReferencesItem()
            item.SourceNodeId, item.TargetNodeId, item.ReferenceTypeId = start, end, reference
            item.IsForward, item.TargetNodeClass = forward, ua.NodeClass.Unspecified
            items.append(item)
        for status in await self._session.add_references(items):
            status.check()

    async def write(self, node: ua.NodeId, value: ua.DataValue) -> None:
        """Write a value, as the server itself."""
        await self._session.iserver.write_attribute_value(node, value)

    async def _add(
        self,
        node: ua.NodeId,
        name: ua.QualifiedName,
        parent: ua.NodeId,
        reference: int,
        class_: ua.NodeClass,
        attributes: object,
        type_: ua.NodeId | None = None,
    ) -> ua.NodeId:
        item = ua.AddNodesItem()
        item.RequestedNewNodeId, item.BrowseName, item.ParentNodeId = node, name, parent
        item.ReferenceTypeId, item.NodeClass = standard(reference), class_
        item.NodeAttributes = attributes
        if type_ is not None:
            item.TypeDefinition = type_
        result = (await self._session.add_nodes([item]))[0]
        result.StatusCode.check()
        added: ua.NodeId = result.AddedNodeId
        return added


def scalar(value: Value, type_: ua.VariantType) -> ua.DataValue:
    """Return a value of good quality."""
    return ua.DataValue(ua.Variant(value, type_))


def argument(name: str, type_: int, text: str) -> ua.Argument:
    """Return a method's argument."""
    return ua.Argument(name, standard(type_), ua.Int32(-1), [], ua.LocalizedText(text))


def is_list(values: object) -> TypeGuard[Sequence[object]]:
    """Whether a value that a client wrote is an array."""
    return isinstance(values, list | tuple)
