"""Datasets made to harm whoever opens them: refused in a sentence, within a second and with little memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from edited import copied, small_dataset
from measured import measured

from lehrling.datasets import inventory
from lehrling.datasets.arrays import read_array, write_array
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.files import MANIFEST
from lehrling.datasets.view import Field, View, ViewSpec, build_view

SECONDS, MEGABYTES = 1.0, 100
"""An interpreter with the library takes 95 MB: with this much more, it stays below 200 MB."""
REFUSED = ("InputError", "DocumentError", "DamageError")
EPISODE, NUMBERS, CAMERA = "episodes/one", "episodes/one/joint_position/value", "episodes/one/front/value"
VIEW = "views/v"
SPEC = ViewSpec(
    rate_hz=10,
    image_px=48,
    cameras=("front",),
    state=(Field(stream="joint_position"),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")),),
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small_dataset(tmp_path_factory.mktemp("plant") / "plant.zarr", ("one",), 0.5)
    build_view(Dataset.open(root), "v", SPEC)
    return root


@pytest.fixture
def root(plant: Path, tmp_path: Path) -> Path:
    return copied(plant, tmp_path / "plant.zarr")


def open_dataset(root: Path) -> object:
    return Dataset.open(root)


def read_values(root: Path) -> object:
    return Dataset.open(root).episode("one").stream("joint_position").value


def read_numbers(root: Path) -> object:
    return read_array(root / NUMBERS)


def read_frame(root: Path) -> object:
    return Dataset.open(root).episode("one").stream("front").frame(0)


def open_view(root: Path) -> object:
    view = View.open(Dataset.open(root), "v")
    return view.state, view.images("front")[0]


def verify(root: Path) -> object:
    found = Dataset.open(root).verify().problems
    if found:
        raise ValueError(str(found))
    return found


READERS = (open_dataset, read_values, read_numbers, read_frame, open_view, verify)
Read = Callable[[Path], object]


def refused(action: Read, root: Path, reason: str, errors: tuple[str, ...] = REFUSED) -> None:
    found = measured(lambda: action(root))
    assert found.error in errors, found
    assert reason in found.text, found
    assert found.seconds < SECONDS, found
    assert found.bytes < MEGABYTES << 20, found


def change(directory: Path, **keys: Any) -> None:
    path = directory / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def changed_codec(directory: Path, **settings: Any) -> None:
    """Change the settings of an array's first codec."""
    codecs = json.loads((directory / "zarr.json").read_text())["codecs"]
    codecs[0]["configuration"] |= settings
    change(directory, codecs=codecs)


def sparse(path: Path, size: int) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(size)


def zeros(count: int) -> bytes:
    """Return so many zeros as a frame of zstd."""
    return bytes(numcodecs.Zstd(level=3).encode(np.zeros(count, np.uint8)))


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT | os.O_WRONLY)


@pytest.mark.parametrize("read", READERS)
def test_the_dataset_that_is_made_hostile_below_is_read_within_the_same_bounds(root: Path, read: Read) -> None:
    found = measured(lambda: read(root))
    assert (found.error, found.bytes < MEGABYTES << 20) == ("", True), found


@pytest.mark.parametrize("read", [read_values, read_numbers])
def test_a_zarr_v2_array_with_a_pickle_codec_is_refused_and_not_unpickled(root: Path, read: Read) -> None:
    trap, array = root / "sprung", root / NUMBERS
    shutil.rmtree(array)
    array.mkdir()
    facts = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": 0}
    (array / ".zarray").write_text(json.dumps(facts | {"order": "C", "filters": [{"id": "pickle", "protocol": 5}]}))
    (array / "0").write_bytes(pickle.dumps(np.array([Trap(trap)], dtype=object)))
    refused(read, root, "Expected the metadata of a Zarr v3 array")
    (array / "zarr.json").write_text((array / ".zarray").read_text())
    refused(read, root, "Expected the metadata of a Zarr v3 array")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"zarr_format": 2}, "Expected a Zarr v3 array"),
        ({"node_type": "group"}, "Expected a Zarr v3 array"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "'numcodecs.pickle', which is not on the allow-list"),
        ({"codecs": [{"name": "vlen-utf8"}]}, "'vlen-utf8', which is not on the allow-list"),
        ({"data_type": "string"}, "elements of the type 'string'"),
        ({"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 1 << 40}}}, "the type"),
        ({"shape": [1 << 45, 7]}, "beyond any episode"),
        ({"shape": [1 << 37, 7]}, "chunks, beyond any episode"),
        ({"shape": [1 << 30, 7]}, "is missing"),
        ({"shape": [-1, 7]}, "beyond any episode"),
        ({"shape": [True, 7]}, "beyond any episode"),
        ({"shape": 7}, "none that can be read"),
        ({"shape": [50]}, "asks for chunks of"),
        ({"shape": [1 << 62] * 10_000}, "asks for chunks of"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({"chunk_key_encoding": {"name": "v2"}}, "chunks at other places"),
        ({"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}}, "at other places"),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shape": [50, 7]}}}, "at other places"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 7]}}}, "asks for chunks of"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 26, 7]}}}, "beyond any episode"),
        ({"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "zstd"}]}, "chunks packed twice"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1]}}]}, "none that can be read"),
    ],
)
def test_metadata_that_no_episode_has_is_refused(root: Path, keys: dict[str, Any], reason: str) -> None:
    change(root / NUMBERS, **keys)
    for read in (read_values, read_numbers):
        refused(read, root, reason)


def test_shards_within_shards_and_packed_indices_are_refused(root: Path) -> None:
    array = root / CAMERA
    inner = json.loads((array / "zarr.json").read_text())["codecs"][0]
    changed_codec(array, codecs=[inner])
    refused(lambda r: read_array(r / CAMERA), root, "asks for shards of")
    changed_codec(array, index_codecs=[{"name": "bytes"}, {"name": "zstd"}])
    refused(lambda r: read_array(r / CAMERA), root, "other shards than with a checksum")


@pytest.mark.parametrize("read", [read_values, read_numbers])
def test_a_chunk_that_unpacks_to_more_than_is_declared_is_not_unpacked(root: Path, read: Read) -> None:
    (root / NUMBERS / "c" / "0" / "0").write_bytes(zeros(600 << 20))
    refused(read, root, "claims to unpack to 629145600 bytes, and its chunk has 3670016")


@pytest.mark.parametrize("read", [read_values, read_numbers])
def test_a_chunk_that_does_not_say_how_much_it_unpacks_to_is_not_unpacked(root: Path, read: Read) -> None:
    block = struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"\0"
    (root / NUMBERS / "c" / "0" / "0").write_bytes(b"\x28\xb5\x2f\xfd\x00\x58" + block * 100_000)
    refused(read, root, "does not say how large it is")


def test_many_chunks_that_unpack_a_thousandfold_are_refused(root: Path) -> None:
    array, chunk = root / NUMBERS, zeros(65_536 * 56)
    change(array, shape=[65_536 * 1200, 7])
    shutil.rmtree(array / "c")
    (array / "c" / "0").mkdir(parents=True)
    (array / "c" / "0" / "0").write_bytes(chunk)
    for number in range(1, 1200):
        (array / "c" / str(number)).mkdir()
        os.link(array / "c" / "0" / "0", array / "c" / str(number) / "0")
    refused(read_numbers, root, "to 4404019200 bytes; it is refused")


def test_a_robot_that_stands_still_for_an_hour_is_no_bomb(root: Path) -> None:
    import zarr

    group = zarr.create_group(root / "still")
    write_array(group, "value", np.zeros((400_000, 14)))
    assert measured(lambda: read_array(root / "still" / "value")).error == ""


def test_rows_so_large_that_65536_of_them_would_be_too_much_are_chunked_finer(root: Path) -> None:
    import zarr

    group = zarr.create_group(root / "large")
    rows = np.arange(3 * 40_000, dtype=np.float32).reshape(3, 40_000)
    write_array(group, "value", rows)
    data = json.loads((root / "large" / "value" / "zarr.json").read_text())
    assert data["chunk_grid"]["configuration"]["chunk_shape"] == [(64 << 20) // 160_000, 40_000]
    assert np.array_equal(read_array(root / "large" / "value"), rows)


@pytest.mark.parametrize(("place", "read"), [(f"{NUMBERS}/c/0/0", read_values), (f"{NUMBERS}/c/0/0", read_numbers)])
def test_a_sparse_chunk_of_a_terabyte_is_not_read(root: Path, place: str, read: Read) -> None:
    sparse(root / place, 1 << 40)
    refused(read, root, "and its chunk at most")


def test_a_sparse_shard_of_a_terabyte_is_not_read(root: Path) -> None:
    sparse(root / CAMERA / "c" / "0" / "0" / "0" / "0", 1 << 40)
    refused(read_frame, root, "The index of")


def test_a_shard_whose_index_claims_a_frame_of_a_terabyte_is_refused(root: Path) -> None:
    path = root / CAMERA / "c" / "0" / "0" / "0" / "0"
    content = path.read_bytes()
    table = np.frombuffer(content[-512 * 16 - 4 : -4], "<u8").copy()
    sparse(path, 1 << 40)
    table[1] = (1 << 40) - 1000
    import google_crc32c

    with path.open("ab") as file:
        file.write(table.tobytes() + google_crc32c.value(table.tobytes()).to_bytes(4, "little"))
    refused(read_frame, root, "Frame 0 is missing")


@pytest.mark.parametrize(
    ("name", "read", "size", "reason"),
    [
        (MANIFEST, open_dataset, 1 << 40, "that is no manifest"),
        (MANIFEST, open_dataset, 900 << 20, "Line 2 of"),
        ("zarr.json", open_dataset, 1 << 40, "no Lehrling dataset"),
        (f"{EPISODE}/zarr.json", read_values, 1 << 40, "Expected a sealed episode"),
        (f"{EPISODE}/zarr.json", read_frame, 16 << 20, "Expected a sealed episode"),
        (f"{NUMBERS}/zarr.json", read_values, 1 << 40, "none that can be read"),
        (f"{NUMBERS}/zarr.json", read_numbers, 1 << 40, "none that can be read"),
        (f"{VIEW}/zarr.json", open_view, 1 << 40, "Expected a view at"),
        (f"{VIEW}/inventory.json", open_view, 1 << 40, "Expected an inventory"),
        (f"{VIEW}/inventory.json", open_view, 200 << 20, "Expected an inventory"),
    ],
)
def test_documents_that_are_too_large_are_refused(root: Path, name: str, read: Read, size: int, reason: str) -> None:
    sparse(root / name, size)
    refused(read, root, reason)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"{}," * 5_000_000 + b"{}]"], ids=["lists", "maps", "many"]
)
def test_documents_nested_deeply_or_of_many_values_are_refused(root: Path, content: bytes) -> None:
    (root / EPISODE / "zarr.json").write_bytes(content)
    refused(read_values, root, "Expected a sealed episode")
    (root / VIEW / "inventory.json").write_bytes(content)
    refused(open_view, root, "Expected an inventory")
    (root / MANIFEST).write_bytes(content + b"\n")
    refused(open_dataset, root, "Line 1 of")


@pytest.mark.parametrize("path", ["../../../outside", "/etc/passwd", "front/../../../../outside", "", "a\0b"])
def test_an_inventory_that_leads_out_of_its_folder_is_refused(root: Path, path: str) -> None:
    (root.parent / "outside").write_bytes(b"secret")
    for folder, read in ((VIEW, open_view), (EPISODE, verify)):
        inventory.save(root / folder, [inventory.Entry(path, 6, "0" * 64)])
        refused(read, root, "which is no file of an episode", (*REFUSED, "ValueError"))


@pytest.mark.parametrize("name", ["../outside", "/tmp", "a/b", "..", "x\0"])
def test_a_manifest_that_names_a_path_is_refused(root: Path, name: str) -> None:
    path = root / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": name}) + "\n")
    refused(open_dataset, root, "Line 1 of")


PLACES = [
    ("episodes", open_dataset),
    (EPISODE, open_dataset),
    (MANIFEST, open_dataset),
    (f"{EPISODE}/zarr.json", read_values),
    (f"{EPISODE}/joint_position", read_values),
    (f"{NUMBERS}/zarr.json", read_values),
    (f"{NUMBERS}/c/0/0", read_values),
    (f"{NUMBERS}/c/0/0", read_numbers),
    (f"{CAMERA}/c/0/0/0/0", read_frame),
    (f"{EPISODE}/inventory.json", verify),
    ("views", open_dataset),
    (VIEW, open_dataset),
    (f"{VIEW}/zarr.json", open_view),
    (f"{VIEW}/inventory.json", open_view),
    (f"{VIEW}/state/c/0/0", open_view),
    (f"{VIEW}/images/front/c/0/0/0/0", open_view),
]


@pytest.mark.parametrize(("name", "read"), PLACES)
def test_a_symbolic_link_is_refused_wherever_it_is(root: Path, name: str, read: Read) -> None:
    shutil.move(root / name, root.parent / "outside")
    (root / name).symlink_to(root.parent / "outside")
    refused(read, root, "", (*REFUSED, "ValueError"))


FILES = [(name, read) for name, read in PLACES if "." in Path(name).name or "/c/" in name]


@pytest.mark.parametrize(("name", "read"), [*FILES, (f"{NUMBERS}/zarr.json", read_numbers)])
def test_a_pipe_that_never_ends_is_not_read(root: Path, name: str, read: Read) -> None:
    (root / name).unlink()
    os.mkfifo(root / name)
    refused(read, root, "", (*REFUSED, "ValueError"))


def test_a_jpeg_that_claims_to_be_large_is_not_decoded(root: Path) -> None:
    path = root / CAMERA / "c" / "0" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(bytes(content))
    refused(read_frame, root, "expected a JPEG of 96 x 96")
