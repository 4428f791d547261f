"""Tensors from files that may come from anywhere: safetensors only, of the names and shapes that are expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lehrling.datasets.errors import InputError, StorageError


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda _name: True) -> dict[str, Tensor]:
    """Read the tensors whose names are `wanted` from a safetensors file.

    Raises:
        InputError: the file is missing, or no safetensors.
    """
    if not path.is_file():
        raise InputError(f"Expected {path}, but there is no such file; restore it.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path} cannot be read as safetensors ({_first_line(error)}); restore it.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the place where safetensors could not be written, which their own error does not.

    Raises:
        StorageError: no space, or a broken disk.
    """
    try:
        yield
    except SafetensorError as error:
        raise StorageError(
            f"Writing {path} failed: {_first_line(error)}; check the disk and its space, then go on with --resume."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def difference(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return what first differs in names, shapes, or kind of number, as `x [4, 2] was expected, nothing came`; or ""."""
    for name in sorted({*wanted, *found}):
        expected, came = _layout(wanted.get(name)), _layout(found.get(name))
        if expected != came:
            return f"{name}: {expected} was expected, {came} came"
    return ""


def _layout(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{list(tensor.shape)}" if tensor.is_floating_point() else f"{list(tensor.shape)} {tensor.dtype}"


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a module that has exactly these.

    Raises:
        InputError: a name or a shape differs; `where` says whose tensors they are.
    """
    if differs := difference(module.state_dict(), tensors):
        raise InputError(f"{where} does not fit this model: {differs}.")
    module.load_state_dict(dict(tensors))
