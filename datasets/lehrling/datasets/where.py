"""Filter expressions over episodes, such as `outcome == 'success' and task == 'kitting' and duration_s > 3`.

A small part of Python's syntax, checked node by node when parsed and then walked; nothing is ever evaluated by Python.
Values are strings, numbers, True, False, None and tuples of these; operators are comparisons, `in`, `and`, `or`, `not`;
`lengths['front']` and `rates_hz['front']` take a stream's name; strings have `startswith`, `endswith` and `lower`.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lehrling.datasets.errors import InputError
from lehrling.datasets.manifest import EpisodeRecord

CHARACTERS_MAX = 4096
FIELDS: dict[str, Callable[[EpisodeRecord], object]] = {
    **{
        name: operator.attrgetter(name)
        for name in (
            "id", "status", "task", "instruction", "robot", "origin", "seed", "operator", "outcome", "stop_cause",
            "duration_s", "bytes", "content_hash", "contract_hash", "binding_hash", "reason", "code_version",
            "written_at", "tags", "losses", "lengths",
        )
    },
    "rates_hz": lambda record: {name: timing.rate_hz for name, timing in record.timing.items()},
    "parent": lambda record: record.parent.id if record.parent else None,
}  # fmt: skip
"""What an expression can name, and what it means of an episode."""

MAPPINGS = ("lengths", "rates_hz")
METHODS: Mapping[str, tuple[int, Callable[..., object]]] = {
    "startswith": (1, str.startswith),
    "endswith": (1, str.endswith),
    "lower": (0, str.lower),
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class WhereError(InputError, ValueError):
    """A filter expression cannot be read; a ValueError too, as pydantic wants it."""


@dataclass(frozen=True)
class Where:
    """A filter expression that has been checked."""

    text: str
    _tree: ast.expr

    def matches(self, record: EpisodeRecord) -> bool:
        """Whether an episode passes. What an episode does not have (None) is neither more nor less than anything.

        Raises:
            WhereError: two values cannot be compared; the message names them.
        """
        return bool(_value(self._tree, record, self.text))


def parse_where(text: str) -> Where:
    """Parse and check a filter expression.

    Raises:
        WhereError: it is none; the message says what is not understood, or names the known fields.
    """
    if len(text) > CHARACTERS_MAX:
        raise WhereError(f"Expected a filter of at most {CHARACTERS_MAX} characters, got {len(text)}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree, text)
    except SyntaxError as error:
        raise WhereError(
            f"Expected a filter such as \"outcome == 'success' and duration_s > 3\", got {text!r}: {error.msg}."
        ) from error
    except (RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, WhereError):
            raise
        raise WhereError(f"Expected a filter that people can read, got {text[:60]!r}….") from error
    return Where(text, tree)


def _check(node: ast.expr, text: str) -> None:
    """Refuse every construct that is not on the list."""
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None):
            return
        case ast.Name(id=name):
            _check_name(name)
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            _check_all(parts, text)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=part):
            _check(part, text)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            _check_all([left, *others], text)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str())) if name in MAPPINGS:
            return
        case ast.Call(func=ast.Attribute(value=part, attr=method), args=given, keywords=[]) if method in METHODS:
            if len(given) != METHODS[method][0]:
                raise WhereError(
                    f"Expected {METHODS[method][0]} argument for {method}() in {text!r}, got {len(given)}."
                )
            _check_all([part, *given], text)
        case _:
            raise WhereError(
                f"Expected comparisons of fields with 'and', 'or', 'not' and 'in', got {ast.unparse(node)[:60]!r} "
                f"in {text!r}."
            )


def _check_all(nodes: list[ast.expr], text: str) -> None:
    for node in nodes:
        _check(node, text)


def _check_name(name: str) -> None:
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise WhereError(f"There is no field {name!r} to filter by; known are {', '.join(sorted(FIELDS))}.{hint}")


def _value(node: ast.expr, record: EpisodeRecord, text: str) -> Any:
    """Return what a checked node means of an episode."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return FIELDS[name](record)
        case ast.BoolOp() | ast.UnaryOp():
            return _logic(node, record, text)
        case ast.Compare():
            return _compared(node, record, text)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
            return cast("Mapping[str, object]", FIELDS[name](record)).get(str(key))
        case ast.Call(func=ast.Attribute(value=part, attr=method), args=given):
            return _called(method, [_value(argument, record, text) for argument in (part, *given)], text)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(_value(part, record, text) for part in parts)
    raise WhereError(f"Expected a checked filter, got {text!r}.")


def _logic(node: ast.BoolOp | ast.UnaryOp, record: EpisodeRecord, text: str) -> object:
    if isinstance(node, ast.BoolOp):
        values = (bool(_value(part, record, text)) for part in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    value = _value(node.operand, record, text)
    return not value if isinstance(node.op, ast.Not) else _negative(value, text)


def _negative(value: object, text: str) -> object:
    if not isinstance(value, int | float):
        raise WhereError(f"Expected a number after '-' in {text!r}, got {value!r}.")
    return -value


def _called(method: str, values: list[object], text: str) -> object:
    if values[0] is None:
        return None
    if not all(isinstance(value, str) for value in values):
        raise WhereError(f"Expected text for {method}() in {text!r}, got {values}.")
    return METHODS[method][1](*values)


def _compared(node: ast.Compare, record: EpisodeRecord, text: str) -> bool:
    left = _value(node.left, record, text)
    for operation, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, record, text)
        if not _holds(operation, left, right, text):
            return False
        left = right
    return True


def _holds(operation: ast.cmpop, left: object, right: object, text: str) -> bool:
    if not isinstance(operation, ast.Eq | ast.NotEq) and (right is None or (left is None and not _contains(operation))):
        return False
    try:
        return _COMPARE[type(operation)](left, right)
    except TypeError as error:
        raise WhereError(
            f"Expected values that can be compared in {text!r}, got {_short(left)} and {_short(right)}."
        ) from error


def _contains(operation: ast.cmpop) -> bool:
    return isinstance(operation, ast.In | ast.NotIn)


def _short(value: object) -> str:
    return f"{value!r}"[:60]
