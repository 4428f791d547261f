"""Demonstrations in HDF5 as robomimic and ALOHA write them: which arrays an episode has, and what each is.

robomimic (also MimicGen, LIBERO): one file, `data/demo_N` with `obs/*`, `actions`, `rewards`, `dones`, `states`; see
https://robomimic.github.io/docs/datasets/overview.html. ALOHA and ACT: a file per episode with `observations/qpos`, `qvel`,
`effort`, `images/*` (pixels, or JPEGs padded with zeros) and `action`; see https://github.com/tonyzhaozh/act.

HDF5 files can point elsewhere and ask for code: links to other files, virtual and external data and filters beyond gzip, lzf,
szip, shuffle and checksums are refused.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lehrling.datasets.documents import parse_json
from lehrling.datasets.errors import DamageError, DocumentError, InputError
from lehrling.datasets.lerobot_format import NUMPY, Feature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

SUFFIXES = (".hdf5", ".h5")
NUMBERS = re.compile(r"(\d+)")
MEMBERS_MAX = 10_000
ELEMENTS_MAX = 1 << 20
NUMBERS_BYTES_MAX = 1 << 30
CHUNK_BYTES_MAX = 256 << 20
SIDE_MIN, SIDE_MAX = 8, 8192
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}
ROBOMIMIC, ALOHA = "robomimic", "ALOHA"
BROKEN = (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError)
"""What h5py raises where a file is bent."""


@dataclass(frozen=True)
class Hdf5Episode:
    """An episode: a file, and in it the path of each feature's array.

    Attributes:
        packed: features whose rows are JPEGs padded with zeros.
        left_out: arrays that cannot be taken, and why.
    """

    name: str
    file: Path
    length: int
    features: tuple[Feature, ...]
    paths: dict[str, str]
    packed: frozenset[str] = frozenset()
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hdf5Source:
    """What a file or folder holds.

    Attributes:
        rate_hz: where the file says it.
        instruction: likewise, as LIBERO's do.
        unread: episodes that cannot be read, and why.
    """

    format: str
    episodes: tuple[Hdf5Episode, ...]
    rate_hz: float | None = None
    instruction: str = ""
    unread: dict[str, str] = field(default_factory=dict)


def h5py() -> ModuleType:
    """Import h5py.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise InputError(
            "Reading HDF5 needs h5py, which is not installed; install it with `pip install 'lehrling-datasets[hdf5]'`."
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; whatever HDF5 cannot read becomes a sentence.

    Raises:
        InputError: it is no HDF5 at all.
        DamageError: in place of h5py's errors.
    """
    try:
        with h5py().File(path, "r", locking=False) as file:
            yield file
    except (InputError, DamageError):
        raise
    except BROKEN as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        told = DamageError if h5py().is_hdf5(path) else InputError
        raise told(f"{path} cannot be read as HDF5: {reason[:200]}.") from error


def member(group: Any, name: str) -> Any:
    """Return a member of a group, None where there is none.

    Raises:
        InputError: it is a link that may lead elsewhere.
    """
    found = group.get(name, getlink=True)
    if found is None:
        return None
    if type(found) is not h5py().HardLink:
        raise InputError(
            f"{group.file.filename}: {group.name}/{name} is a link that may lead elsewhere; it is refused."
        )
    return group[name]


def open_hdf5(source: Path) -> Hdf5Source:
    """Look at a file of robomimic's, or a file or folder of ALOHA's.

    Raises:
        InputError: neither, or nothing in it can be taken.
        DamageError: the first file is HDF5 and cannot be read.
    """
    files = _files(source)
    with opened(files[0]) as file:
        data = member(file, "data")
        if data is not None and hasattr(data, "keys"):
            if len(files) > 1:
                raise InputError(f"Expected one file of robomimic's, got {len(files)} in {source}; name one.")
            return _robomimic(files[0], data)
        aloha = member(file, "observations") is not None and member(file, "action") is not None
    if not aloha:
        raise InputError(
            f"Expected `data/demo_N` as in robomimic's files or `observations` and `action` as in ALOHA's, {files[0]} has neither."
        )
    return _aloha(files)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = [p for p in source.iterdir() if p.suffix in SUFFIXES and p.is_file()] if source.is_dir() else []
    if not found:
        raise InputError(f"Expected an HDF5 file, or a folder with {' or '.join(SUFFIXES)} files, at {source}.")
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort episode_2 before episode_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in NUMBERS.split(name)]


def _names(group: Any) -> list[str]:
    names = list(group.keys())
    if len(names) > MEMBERS_MAX:
        raise InputError(f"{group.file.filename}: {group.name} has {len(names)} members; it is refused.")
    return sorted(names, key=_natural)


def _robomimic(path: Path, data: Any) -> Hdf5Source:
    facts = [_attribute(data, name) for name in ("env_args", "problem_info")]
    rate = facts[0].get("env_kwargs", {}).get("control_freq") if isinstance(facts[0].get("env_kwargs"), dict) else None
    said = facts[1].get("language_instruction", "")
    instruction = " ".join(map(str, said)) if isinstance(said, list) else str(said)
    episodes, unread = [], {}
    for name in _names(data):
        try:
            group = member(data, name)
            if hasattr(group, "keys") and member(group, "actions") is not None:
                episodes.append(_demo(path, name, group))
        except (InputError, *BROKEN) as error:
            unread[name] = _sentence(path, name, error)
    source = Hdf5Source(ROBOMIMIC, tuple(episodes), _rate(rate), instruction.strip('" ')[:4096], unread)
    return _some(source, path)


def _demo(path: Path, name: str, group: Any) -> Hdf5Episode:
    arrays = {"actions": "action", "rewards": "next.reward", "dones": "next.done", "states": "states"}
    found = {f"{group.name}/{ours}": (key, member(group, ours)) for ours, key in arrays.items()}
    observed = member(group, "obs")
    for inner in _names(observed) if hasattr(observed, "keys") else ():
        found[f"{group.name}/obs/{inner}"] = (f"observation.{inner}", member(observed, inner))
    return _episode(path, name, found, group.file.filename)


def _aloha(files: list[Path]) -> Hdf5Source:
    episodes, unread = [], {}
    for path in files:
        try:
            with opened(path) as file:
                episodes.append(_aloha_episode(path, file))
        except (InputError, DamageError, *BROKEN) as error:
            unread[path.stem] = _sentence(path, path.stem, error)
    return _some(Hdf5Source(ALOHA, tuple(episodes), unread=unread), files[0].parent)


def _aloha_episode(path: Path, file: Any) -> Hdf5Episode:
    observed = member(file, "observations")
    if observed is None or member(file, "action") is None:
        raise InputError(f"{path} lacks `observations` or `action`.")
    arrays = {"qpos": "observation.state", "qvel": "observation.velocity", "effort": "observation.effort"}
    found = {f"/observations/{ours}": (key, member(observed, ours)) for ours, key in arrays.items()}
    found |= {
        "/action": ("action", member(file, "action")),
        "/base_action": ("base_action", member(file, "base_action")),
    }
    images = member(observed, "images")
    for camera in _names(images) if hasattr(images, "keys") else ():
        found[f"/observations/images/{camera}"] = (f"observation.images.{camera}", member(images, camera))
    return _episode(path, path.stem, found, str(path))


def _episode(path: Path, name: str, found: dict[str, tuple[str, Any]], where: str) -> Hdf5Episode:
    """Sort an episode's arrays into features."""
    features, paths, packed, left_out = [], {}, set(), {}
    lengths = {}
    for place, (key, array) in found.items():
        if array is None:
            continue
        check_array(array, where)
        lengths[place] = int(array.shape[0]) if array.shape else 0
        feature, is_packed = _feature(key, array)
        if feature is None:
            left_out[place.rpartition("/")[2]] = f"no numbers or colour images, {array.dtype} {array.shape[1:]}"
            continue
        features.append(feature)
        paths[feature.key] = place
        if is_packed:
            packed.add(feature.key)
    counts = {lengths[place] for place in paths.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"{where}, {name}: its arrays differ in length or are empty, {lengths}.")
    return Hdf5Episode(name, path, counts.pop(), tuple(features), paths, frozenset(packed), left_out)


def check_array(array: Any, where: str) -> None:
    """Refuse arrays that lead elsewhere, ask for code, or would unpack without bounds.

    Raises:
        InputError: naming the array.
    """
    if not hasattr(array, "shape"):
        raise InputError(f"{where}: {array.name} is no array.")
    if array.is_virtual or array.external:
        raise InputError(f"{where}: {array.name} keeps its data in other files; it is refused.")
    settings = array.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        if (code := settings.get_filter(number)[0]) not in FILTERS:
            raise InputError(f"{where}: {array.name} needs the HDF5 filter {code}, which is not on the allow-list.")
    size = array.dtype.itemsize
    for length in array.chunks or ():
        size *= length
    if size > CHUNK_BYTES_MAX:
        raise InputError(f"{where}: {array.name} is stored in chunks of {size} bytes; it is refused.")


def _feature(key: str, array: Any) -> tuple[Feature | None, bool]:
    """Return what an array is, None where it cannot be taken, and whether its rows are padded JPEGs."""
    shape, dtype = tuple(int(n) for n in array.shape[1:]), str(array.dtype)
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", key)[:120]
    if dtype == "uint8" and len(shape) == 3 and shape[2] == 3:
        camera = name.removeprefix("observation.").removeprefix("images.").removesuffix("_image") or "camera"
        fits = all(SIDE_MIN <= side <= SIDE_MAX for side in shape[:2])
        return (Feature(f"observation.images.{camera}", "image", shape) if fits else None), False
    if dtype == "uint8" and len(shape) == 1 and name.startswith("observation.images."):
        return Feature(name, "image", (0, 0, 3)), True
    elements = 1
    for length in shape:
        elements *= length
    if dtype not in NUMPY or len(shape) > 2 or not 1 <= elements <= ELEMENTS_MAX or array.nbytes > NUMBERS_BYTES_MAX:
        return None, False
    return Feature(name, dtype, shape or (1,)), False


def _attribute(group: Any, name: str) -> dict[str, Any]:
    """Return an attribute that holds JSON, {} where there is none that can be read."""
    try:
        text = group.attrs.get(name)
        found = parse_json(text, name) if isinstance(text, (str, bytes)) and len(text) < (1 << 20) else {}
    except (DocumentError, *BROKEN):
        return {}
    return found if isinstance(found, dict) else {}


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value <= 1000 else None


def _some(source: Hdf5Source, where: Path) -> Hdf5Source:
    if not source.episodes:
        why = f" {next(iter(source.unread.values()))}" if source.unread else ""
        raise InputError(f"{where} holds no episode that can be read.{why}")
    return source


def _sentence(path: Path, name: str, error: Exception) -> str:
    if isinstance(error, (InputError, DamageError)):
        return str(error)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"{path}, {name}, cannot be read: {reason[:200]}."
