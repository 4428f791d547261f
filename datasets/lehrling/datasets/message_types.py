"""Message types: those of ROS 2 Jazzy, and those whose definitions a recording brings along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from lehrling.datasets.errors import DamageError, InputError

DEFINITION_BYTES_MAX = 128 << 10
SEPARATOR = "=" * 80 + "\n"
IDL = re.compile(r"^\s*module\s+\w+\s*\{", re.MULTILINE)
ARRAY_LENGTH_MAX = 1024
"""Of fixed arrays of strings or messages: rosbags writes code for each of their elements."""


class Types:
    """The standard message types and some more; reads CDR bytes without a ROS installation."""

    def __init__(self, definitions: Mapping[str, str] | None = None) -> None:
        """Take definitions (`ros2msg` or `ros2idl`, with those that they need) by message type.

        Raises:
            InputError: a definition cannot be read, or defines a standard type otherwise.
        """
        self._store = get_typestore(Stores.ROS2_JAZZY)
        for msgtype, text in (definitions or {}).items():
            self._add(msgtype, text)
        self.added = tuple(name for name in definitions or {} if name not in standard_names())

    def _add(self, msgtype: str, text: str) -> None:
        try:
            self._store.register(_parse(msgtype, text))
            if msgtype not in self._store.fielddefs:
                raise TypesysError(f"{msgtype} is not among the types defined")
            self._store.get_msgdef(msgtype)
        except TypesysError as error:
            reason = str(error).splitlines()[0][:200].rstrip(".")
            raise InputError(f"The definition of {msgtype} that came along cannot be used: {reason}.") from error
        except Exception as error:
            kind = type(error).__name__
            raise InputError(f"The definition of {msgtype} that came along cannot be read ({kind}).") from error

    def known(self, msgtype: str) -> bool:
        """Whether this type can be read."""
        return msgtype in self._store.fielddefs

    def definition(self, msgtype: str) -> str:
        """Return the definition, with those that it needs, as recorded in MCAP (`ros2msg`).

        Raises:
            InputError: the type is not known.
        """
        if not self.known(msgtype):
            raise InputError(
                f"There is no message type {msgtype!r} among the standard ROS 2 definitions, and none came along."
            )
        return str(self._store.generate_msgdef(msgtype, ros_version=2)[0])

    def definitions(self) -> dict[str, str]:
        """Return the definitions of the types that are not standard."""
        return {name: self.definition(name) for name in self.added}

    def has_header(self, msgtype: str) -> bool:
        """Whether messages of this type begin with a std_msgs/Header, so that bytes 4 to 12 of the CDR are its stamp."""
        fields = self._store.fielddefs[msgtype][1]
        return bool(fields) and fields[0][1] == (Nodetype.NAME, "std_msgs/msg/Header")

    def make(self, msgtype: str) -> Any:
        """Return the class of a message type."""
        return self._store.types[msgtype]

    def encode(self, message: Any) -> bytes:
        """Return a message as CDR bytes."""
        return bytes(self._store.serialize_cdr(message, message.__msgtype__))

    def decode(self, cdr: bytes, msgtype: str) -> Any:
        """Return the message in CDR bytes; arrays are views where they can be.

        Raises:
            DamageError: the bytes are no such message.
        """
        try:
            return self._store.deserialize_cdr(cdr, msgtype)
        except Exception as error:
            raise DamageError(
                f"Expected a {msgtype}, got {len(cdr)} bytes that are none ({type(error).__name__})."
            ) from error


@cache
def standard() -> Types:
    """Return the standard types."""
    return Types()


@cache
def standard_names() -> frozenset[str]:
    """Return the names of all standard types."""
    return frozenset(get_typestore(Stores.ROS2_JAZZY).fielddefs)


def _parse(msgtype: str, text: str) -> Any:
    """Parse a definition; refuse what would make rosbags write or compute without bounds."""
    if len(text) > DEFINITION_BYTES_MAX:
        raise TypesysError(f"it has {len(text)} characters, more than {DEFINITION_BYTES_MAX}")
    idl = IDL.search(text) is not None
    if idl and "<<" in text:
        raise TypesysError("it computes constants by shifting")
    types = _parse_idl(text) if idl else get_types_from_msg(text, msgtype)
    for name, (_, fields) in types.items():
        for field, description in fields:
            if (length := _unrolled(description)) > ARRAY_LENGTH_MAX:
                raise TypesysError(f"field {field} of {name} is an array of {length}")
    return types


def _parse_idl(text: str) -> Any:
    """Parse IDL; rosbag2 puts several in one text, each under a line with its name."""
    if not text.startswith(f"{SEPARATOR}IDL: "):
        return get_types_from_idl(text)
    types: dict[str, Any] = {}
    for part in text.split(SEPARATOR)[1:]:
        types |= get_types_from_idl(part.partition("\n")[2])
    return types


def _unrolled(description: Any) -> int:
    """Return the length of a fixed array of strings or messages, 0 of any other field."""
    kind, inner = description
    if kind != Nodetype.ARRAY:
        return 0
    (element, name), length = inner
    return int(length) if element == Nodetype.NAME or name[0] == "string" else 0
