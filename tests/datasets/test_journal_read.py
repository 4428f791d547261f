from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mcap.exceptions import McapError
from mcap.records import Chunk
from mcap.stream_reader import StreamReader, breakup_chunk
from recordings import record

from lehrling.datasets.dataset import create_dataset
from lehrling.datasets.journal_read import chunk_records


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    root = tmp_path_factory.mktemp("plant") / "d.zarr"
    create_dataset(root)
    record(root, "one", seconds=2.0)
    found: list[Chunk] = []
    for path in sorted((root / "journals" / "one").glob("*.mcap")):
        with path.open("rb") as stream:
            found += [r for r in StreamReader(stream, emit_chunks=True).records if isinstance(r, Chunk)]
    return found


def test_the_fast_reading_of_chunks_gives_what_the_mcap_library_gives(chunks: list[Chunk]) -> None:
    count = 0
    for chunk in chunks:
        expected = breakup_chunk(chunk, validate_crc=True)
        assert list(chunk_records(chunk)) == expected
        count += len(expected)
    assert count > 500


def test_a_flipped_bit_a_cut_and_a_compressed_chunk_are_refused(chunks: list[Chunk]) -> None:
    chunk = chunks[0]
    flipped = bytearray(chunk.data)
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(McapError, match="checksum"):
        list(chunk_records(replace(chunk, data=bytes(flipped))))
    with pytest.raises(McapError, match="beyond its chunk"):
        list(chunk_records(replace(chunk, data=chunk.data[:-3], uncompressed_crc=0)))
    with pytest.raises(McapError, match="compressed by 'zstd'"):
        list(chunk_records(replace(chunk, compression="zstd")))


def test_a_chunk_that_claims_to_unpack_to_much_is_not_unpacked(chunks: list[Chunk], tmp_path: Path) -> None:
    bomb = replace(chunks[0], compression="lz4", uncompressed_size=1 << 40)
    with pytest.raises(McapError, match="which no journal is"):
        list(chunk_records(bomb))
    assert not list(tmp_path.iterdir())
