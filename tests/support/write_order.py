"""What a disk may hold after a power cut: a model of files, directories and what `fsync` promises of them.

After ALICE (Pillai et al., OSDI 2014), as pessimistic as POSIX allows and file systems are: what is written to a file is safe
once the file is synced, a name once its directory is; of everything else any part may be there, in any order, and the last
block of a write may be torn. A rename is one step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from file_operations import Operation

Choose = Callable[["Step"], float]
"""Says which share of a step that is not safe is there after all: 0 is nothing, 1 all of it."""


@dataclass
class Step:
    """A change to one file's content, or to names in directories.

    Attributes:
        node: the file; `cut` its new size, or `data` at `offset`.
        names: (directory, name) and the node that it is from now on, None for none.
        synced: the number of operations after which it is safe.
    """

    at: int
    node: int = 0
    cut: int | None = None
    offset: int = 0
    data: bytes = b""
    names: tuple[tuple[int, str, int | None], ...] = ()
    synced: int | None = None


@dataclass
class Disk:
    """A directory as it was, and the steps of a recording; nodes are numbered, the directory itself is 0."""

    contents: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._now: dict[int, dict[str, int]] = {}
        self._count = 0

    @classmethod
    def of(cls, root: Path, operations: Sequence[Operation]) -> Disk:
        """Read what is below `root`, all of it safe, and what is done to it afterwards."""
        disk = cls()
        disk._read(root, 0)
        disk._now = {number: dict(names) for number, names in disk.folders.items()}
        for at, operation in enumerate(operations, start=1):
            disk._do(at, operation)
        return disk

    def _read(self, folder: Path, number: int) -> None:
        for path in sorted(folder.iterdir()):
            self._count += 1
            child = self.folders[number][path.name] = self._count
            if path.is_dir():
                self.folders[child] = {}
                self._read(path, child)
            else:
                self.contents[child] = path.read_bytes()

    def _node(self, path: str) -> int:
        number = 0
        for part in Path(path).parts:
            number = self._now[number][part]
        return number

    def _place(self, path: str) -> tuple[int, str]:
        return self._node(str(Path(path).parent)), Path(path).name

    def _do(self, at: int, operation: Operation) -> None:
        kind, path = operation.kind, operation.path
        if self._fails(operation):
            return
        if kind in ("create", "mkdir"):
            self._count += 1
            if kind == "mkdir":
                self._now[self._count] = {}
            self._name(at, (*self._place(path), self._count))
        elif kind in ("rename", "link"):
            moved = self._node(path)
            new = (*self._place(operation.other), moved)
            self._name(at, *([(*self._place(path), None)] if kind == "rename" else []), new)
        elif kind in ("unlink", "rmdir"):
            self._name(at, (*self._place(path), None))
        elif kind == "write":
            self.steps.append(Step(at, self._node(path), offset=operation.offset, data=operation.data))
        elif kind == "truncate":
            self.steps.append(Step(at, self._node(path), cut=operation.offset))
        elif kind == "fsync":
            self._sync(at, self._node(path))

    def _fails(self, operation: Operation) -> bool:
        """Whether an operation is refused, as a directory is that is there already, or lacks one above it."""
        try:
            folder, name = self._place(operation.path)
        except KeyError:
            return True
        if operation.kind == "link":
            folder, name = self._place(operation.other)
            return name in self._now[folder]
        there = operation.path == "." or name in self._now[folder]
        return there if operation.kind in ("create", "mkdir") else not there

    def _name(self, at: int, *names: tuple[int, str, int | None]) -> None:
        for folder, name, node in names:
            if node is None:
                self._now[folder].pop(name)
            else:
                self._now[folder][name] = node
        self.steps.append(Step(at, names=names))

    def _sync(self, at: int, node: int) -> None:
        for step in self.steps:
            theirs = [folder for folder, _, _ in step.names] if step.names else [step.node]
            if step.synced is None and node in theirs:
                step.synced = at

    def after(self, count: int, choose: Choose) -> dict[str, bytes | None]:
        """Return what may be there if the power goes after so many operations: files, and None for directories."""
        contents = {node: bytearray(content) for node, content in self.contents.items()}
        folders = {number: dict(names) for number, names in self.folders.items()}
        for step in self.steps:
            if step.at > count:
                break
            safe = step.synced is not None and step.synced <= count
            share = 1.0 if safe else choose(step)
            if step.names:
                if share:
                    _rename(folders, step)
            else:
                _write(contents.setdefault(step.node, bytearray()), step, share)
        return dict(self._tree(0, "", folders, contents))

    def _tree(
        self, number: int, at: str, folders: dict[int, dict[str, int]], contents: dict[int, bytearray]
    ) -> list[tuple[str, bytes | None]]:
        found: list[tuple[str, bytes | None]] = []
        for name, node in folders.get(number, {}).items():
            if node in self._now or node in self.folders:
                found += [(f"{at}{name}", None), *self._tree(node, f"{at}{name}/", folders, contents)]
            else:
                found.append((f"{at}{name}", bytes(contents.get(node, b""))))
        return found


def _rename(folders: dict[int, dict[str, int]], step: Step) -> None:
    for folder, name, node in step.names:
        names = folders.setdefault(folder, {})
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _write(content: bytearray, step: Step, share: float) -> None:
    if step.cut is not None:
        if share:
            del content[step.cut :]
            content.extend(bytes(max(0, step.cut - len(content))))
        return
    data = step.data[: round(len(step.data) * share)]
    if data:
        content.extend(bytes(max(0, step.offset - len(content))))
        content[step.offset : step.offset + len(data)] = data


def everything(_step: Step) -> float:
    """A killed process: the kernel still writes all that was written."""
    return 1.0


def nothing(_step: Step) -> float:
    """Only what is safe."""
    return 0.0


def names_only(step: Step) -> float:
    """Names are there and contents are not, as with delayed allocation."""
    return float(bool(step.names))


def torn(step: Step) -> float:
    """Every name, and half of every write."""
    return 1.0 if step.names else 0.5


def contents_only(step: Step) -> float:
    """Contents are there and names are not."""
    return float(not step.names)


def at_random(seed: int) -> Choose:
    """Return a choice of any part of everything that is not safe."""
    rng = random.Random(seed)
    return lambda _step: rng.choice((0.0, 0.0, 0.3, 1.0, 1.0))


def put(root: Path, state: dict[str, bytes | None]) -> None:
    """Make a directory that holds a state."""
    root.mkdir()
    for name, content in state.items():
        path = root / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
