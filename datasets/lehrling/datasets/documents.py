"""Read JSON and YAML that may come from anywhere: bounded in bytes, depth and values, refused in one sentence.

Every loader parses here, so that no hostile document (nested a thousand deep, or grown by YAML aliases) reaches the
code behind it.
"""

from __future__ import annotations

import json
import reprlib
import stat
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel

from lehrling.datasets.errors import DocumentError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import ValidationError

BYTES_MAX = 1 << 20
DEPTH_MAX = 64
VALUES_MAX = 4_000_000


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON; `where` names the text in errors.

    Raises:
        DocumentError: it is no JSON, or nested or large beyond any document of ours.
    """
    return _parsed(json.loads, text, where, "JSON")


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Parse YAML, plain values only; `where` names the text in errors.

    Raises:
        DocumentError: it is no YAML, or nested or large, aliases counted in full, beyond any document of ours.
    """
    return _parsed(_load_yaml, text, where, "YAML")


def read_json(path: Path, what: str = "document", *, bytes_max: int = BYTES_MAX) -> Any:
    """Read a JSON file; `what` is what it should be.

    Raises:
        DocumentError: it is too large, or `parse_json` refuses it.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DocumentError(f"{path} is no regular file, and so no {what}.")
    content = _content(path, what, bytes_max)
    if sum(map(content.count, (b",", b"[", b"{"))) > VALUES_MAX:
        raise DocumentError(f"{path} holds more than {VALUES_MAX} values; that is no {what}.")
    return parse_json(content, str(path))


def read_yaml(path: Path, what: str = "document", *, bytes_max: int = BYTES_MAX) -> Any:
    """Read a YAML file; `what` is what it should be.

    Raises:
        DocumentError: it is too large, or `parse_yaml` refuses it.
        OSError: it cannot be read.
    """
    return parse_yaml(_content(path, what, bytes_max), str(path))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without merge keys, which grow a document while it is being parsed."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not taken", key.start_mark)


def read_model[Model: BaseModel](path: Path, model: type[Model], what: str) -> Model:
    """Read a YAML file as a pydantic model; `what` is what it should be, with its article.

    Raises:
        InputError: it is missing, not a document of keys, or has a wrong key or value; the message names it.
    """
    from pydantic import ValidationError

    if not path.is_file():
        raise InputError(f"Expected {what} (YAML) at {path}, but there is no such file.")
    data = read_yaml(path, what.removeprefix("a "))
    if not isinstance(data, dict):
        raise InputError(f"Expected the keys of {what} in {path}, got {type(data).__name__}.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(explain(error, str(path), model, what)) from error


def _load_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)


def _content(path: Path, what: str, bytes_max: int) -> bytes:
    if path.stat().st_size <= bytes_max:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) <= bytes_max:
            return content
    raise DocumentError(f"{path} is larger than {bytes_max} bytes; that is no {what}.")


def _parsed(load: Callable[[str], Any], text: str | bytes, where: str, language: str) -> Any:
    try:
        data = load(text.decode() if isinstance(text, bytes) else text)
    except RecursionError as error:
        raise DocumentError(f"{where} is not {language} that anyone writes: it is nested too deeply.") from error
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark is not None else ""
        raise DocumentError(f"{where}{line} is not {language}: {_problem(error)}.") from error
    if refused := _beyond(data):
        raise DocumentError(f"{where} is not {language} that anyone writes: it {refused}.")
    return data


def _problem(error: Exception) -> str:
    text = getattr(error, "problem", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def _beyond(data: object) -> str:
    """Return in which way a document is beyond bounds, level by level; "" where it is not."""
    level, left = [data], VALUES_MAX
    for _ in range(DEPTH_MAX):
        level = list(islice(_children(level), left + 1))
        left -= len(level)
        if left < 0:
            return f"holds more than {VALUES_MAX} values"
        if not level:
            return ""
    return f"is nested deeper than {DEPTH_MAX} levels"


def _children(level: list[object]) -> Iterator[object]:
    for value in level:
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, (list, tuple, set)):
            yield from value


def explain(error: ValidationError, where: str, model: type[BaseModel], what: str) -> str:
    """Say in one sentence what a model refused first: the key, what came, and which keys there are instead."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "the document"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "extra_forbidden":
        known = ", ".join(_holder(model, first["loc"][:-1]).model_fields)
        return f"{where}: {key!r} is not a key of {what}; expected {known}."
    if first["type"] in ("value_error", "missing"):
        return f"{where}: {key}: {message}."
    return f"{where}: {key}: {message}, got {reprlib.repr(first.get('input'))}."


def _holder(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model that the keys at `loc` belong to."""
    for part in loc:
        field = model.model_fields.get(str(part))
        model = next(_models(field.annotation), model) if field is not None else model
    return model


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models inside an annotation, such as those of `tuple[Field, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
