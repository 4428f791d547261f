"""Views in an object store (S3, GCS, Azure, HTTP): files come into a local cache when they are first needed, and are checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lehrling.datasets import inventory
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.dataset_root import FOLDERS, GROUP
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.files import MANIFEST, checked_id, storage_error
from lehrling.datasets.manifest import MANIFEST_BYTES_MAX
from lehrling.datasets.view_data import View

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https")
METADATA_BYTES_MAX = 1 << 28
COMING = ".coming-"
FILE_BYTES_MAX = 1 << 32


def is_remote(place: str) -> bool:
    """Whether a place is an object store's address rather than a path."""
    return place.partition("://")[0] in SCHEMES and "://" in place


class Remote:
    """A folder of an object store; connects when first used, in whichever process that happens.

    Credentials, region and endpoint come from the environment, as for other tools (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
    `AWS_REGION` …); a plain-HTTP endpoint is used only where `AWS_ALLOW_HTTP` says so.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """Look at `url`; `options` are those of `obstore`, in place of the environment's.

        Raises:
            InputError: no address of an object store.
        """
        if not is_remote(url):
            raise InputError(f"Expected an address such as s3://bucket/plant.zarr, got {url!r}.")
        self.url, self._options = url.rstrip("/"), dict(options or {})

    @cached_property
    def _store(self) -> Any:
        try:
            from obstore.store import from_url
        except ImportError:
            raise InputError(f"{self.url} needs the extra `lehrling-datasets[s3]`, which is not installed.") from None
        try:
            connect: Any = from_url
            return connect(self.url, **self._options)
        except Exception as error:  # obstore's own classes, which are made per backend
            raise InputError(
                f"Expected an address that can be used, got {self.url!r}: {_first_line(error)}."
            ) from error

    def read(self, path: str, bytes_max: int) -> bytes:
        """Return a file's content.

        Raises:
            InputError: there is no such file.
            DamageError: it is larger than `bytes_max`.
            StorageError: the store does not answer, or refuses.
        """
        import obstore

        try:
            found = obstore.get(self._store, path)
            if found.meta["size"] > bytes_max:
                raise DamageError(
                    f"{self.url}/{path} has {found.meta['size']} bytes, more than {bytes_max}; it is refused."
                )
            return bytes(found.bytes())
        except FileNotFoundError:
            raise InputError(f"Expected a file at {self.url}/{path}, but there is none.") from None
        except DamageError:
            raise
        except Exception as error:
            raise StorageError(f"Reading {self.url}/{path} failed: {_first_line(error)}.") from error

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "_options": self._options}


class Cache:
    """The local copy of one version of a view: call it with a file's path to have the file there.

    Several processes may share it: a file appears whole or not at all. Where images take more than `bytes_max`, the shards
    that were opened longest ago are removed; whoever reads them still has them.
    """

    def __init__(self, remote: Remote, prefix: str, directory: Path, bytes_max: int | None = None) -> None:
        self._remote, self._prefix, self.directory, self._bytes_max = remote, prefix, directory, bytes_max

    @cached_property
    def _entries(self) -> dict[str, inventory.Entry]:
        return {entry.path: entry for entry in inventory.load(self.directory)}

    def __call__(self, path: Path) -> None:
        """Bring a file of the view, compared with the inventory's size and sha256.

        Raises:
            DamageError: the view has no such file, or the store holds another content.
            StorageError: the store or the local disk failed.
        """
        relative = path.relative_to(self.directory).as_posix()
        entry = self._entries.get(relative)
        if entry is None or ".." in PurePosixPath(relative).parts:
            raise DamageError(f"Expected {relative} in the inventory of {self._remote.url}/{self._prefix}, got none.")
        with contextlib.suppress(FileNotFoundError):  # another reader of a small cache may take it away at any moment
            if path.stat().st_size == entry.size:
                os.utime(path)
                return
        content = b""
        with contextlib.suppress(DamageError):  # larger than listed: refused below, with the reason
            content = self._remote.read(f"{self._prefix}/{relative}", min(entry.size, FILE_BYTES_MAX))
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise DamageError(
                f"{self._remote.url}/{self._prefix}/{relative} has other content than its inventory says; the view was built "
                "anew meanwhile, or is damaged: open it again, or copy it again."
            )
        put(path, content)
        self._shrink(path, entry.size)

    def _shrink(self, keep: Path, size: int) -> None:
        """Drop the shards that were used longest ago, but one of a size."""
        if self._bytes_max is None:
            return
        found = []
        for folder in (self.directory / "images").rglob(
            "c"
        ):  # numbers are small, and an array needs all its chunks at once
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file() and path != keep and not path.name.startswith(COMING):
                        facts = path.stat()
                        found.append((facts.st_mtime_ns, facts.st_size, path))
        held = size + sum(other for _, other, _ in found)
        for _, other, path in sorted(found):
            if held <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            held -= other

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_entries"}


def put(path: Path, content: bytes) -> None:
    """Write a file so that others see it whole or not at all.

    Raises:
        StorageError: the disk is full or failed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=COMING)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).rename(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path) from error


def default_cache() -> Path:
    """Return where copies are kept: `LEHRLING_CACHE`, or the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("LEHRLING_CACHE") or Path(base) / "lehrling")


def open_remote(
    url: str,
    name: str,
    cache: Path | None = None,
    *,
    bytes_max: int | None = None,
    options: Mapping[str, str] | None = None,
) -> tuple[Dataset, View]:
    """Open a dataset in an object store for its view `name`.

    What comes at once is small: the manifest and the view's description. The rest comes when it is read. The dataset that
    is returned knows every record; of its episodes only the view's first has its attributes, which tell the contract.

    Args:
        url: of the dataset, such as `s3://bucket/plant.zarr`.
        name: of the view.
        cache: directory of local copies; None takes `default_cache`.
        bytes_max: of the view's files in the cache; None is no limit.
        options: of `obstore`, in place of the environment's.

    Raises:
        InputError: no address, no dataset or no such view; or the view holds a purged episode.
        DamageError: what is there cannot be read.
        StorageError: the store or the local disk failed.
    """
    remote, name = Remote(url, options), checked_id(name)
    root = (cache or default_cache()) / hashlib.sha256(remote.url.encode()).hexdigest()[:32]
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    put(root / GROUP, remote.read(GROUP, METADATA_BYTES_MAX))
    put(root / MANIFEST, remote.read(MANIFEST, MANIFEST_BYTES_MAX))
    dataset = Dataset.open(root)
    prefix = f"views/{name}"
    listed = remote.read(f"{prefix}/{inventory.NAME}", METADATA_BYTES_MAX)
    directory = root / "views" / f"{name}@{hashlib.sha256(listed).hexdigest()[:32]}"
    put(directory / inventory.NAME, listed)
    bring = Cache(remote, prefix, directory, bytes_max)
    bring(directory / GROUP)
    view = View(directory, need=bring)
    first = f"episodes/{checked_id(view.episodes[0].id)}/{GROUP}"
    put(root / first, remote.read(first, METADATA_BYTES_MAX))
    if pinned := view.spec.episodes.snapshot:
        part = f"snapshots/{checked_id(pinned)}.json"
        put(root / part, remote.read(part, METADATA_BYTES_MAX))
    view.check(dataset, name)
    return dataset, view


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
