"""Frames of an episode's camera that is kept as video: a frame is decoded with its group, of which the last ones stay in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lehrling.datasets.codec_video import CODEC_NAME, CRF, GROUP_MAX, H264Frames, decode_group, encode_group
from lehrling.datasets.encoded_chunks import EncodedChunks
from lehrling.datasets.errors import DamageError
from lehrling.datasets.view_images import write_frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

GROUPS_PER_SHARD, GROUPS_KEPT = 64, 4


class VideoFile:
    """The frames of one `value` array; `file[i]` is (h, w, 3) uint8 RGB."""

    def __init__(self, directory: Path) -> None:
        self._chunks = EncodedChunks(directory)
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return self._chunks.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return frame `index`.

        Raises:
            IndexError: no such frame.
            DamageError: its group is missing or does not decode.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"expected a frame from 0 to {len(self) - 1}, got {index}")
        group, place = divmod(index, self._chunks.rows)
        frames = self._group(group)
        if place >= len(frames):
            raise DamageError(f"Frame {index} is missing in {self._chunks.directory}; run `lehrling verify`.")
        frame: NDArray[np.uint8] = frames[place].copy()
        return frame

    def _group(self, number: int) -> NDArray[np.uint8]:
        if number not in self._kept:
            height, width = self._chunks.metadata["shape"][1:3]
            try:
                frames = decode_group(self._chunks[number], height, width)
            except ValueError as error:
                raise DamageError(f"Group {number} of {self._chunks.directory} is damaged: {error}.") from error
            while len(self._kept) >= GROUPS_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[number] = frames
        return self._kept[number]


def is_video(metadata: dict[str, Any]) -> bool:
    """Whether an array's metadata, which were checked, say that its chunks are video."""
    codec = metadata["codecs"][0]
    inner = codec["configuration"]["codecs"][0] if codec["name"] == "sharding_indexed" else codec
    return bool(inner["name"] == CODEC_NAME)


def write_video(
    group: Any, directory: Path, path: str, frames: Sequence[NDArray[np.uint8]], shape: tuple[int, ...], crf: int = CRF
) -> None:
    """Write colour frames as groups of pictures, sharded.

    Args:
        group: of the episode, on disk at `directory`.
        directory: of the group.
        path: of the array in it.
        frames: each (h, w, 3) uint8; taken one group at a time.
        shape: of a frame.
        crf: quality of x264, 0 to 51; lower is better and larger.
    """
    group.create_array(
        path,
        shape=(len(frames), *shape),
        chunks=(GROUP_MAX, *shape),
        shards=(GROUP_MAX * GROUPS_PER_SHARD, *shape),
        dtype="uint8",
        serializer=H264Frames(crf),
        compressors=None,
        fill_value=0,
    )

    def groups() -> Iterator[bytes]:
        import numpy as np

        for first in range(0, len(frames), GROUP_MAX):
            last = min(first + GROUP_MAX, len(frames))
            yield encode_group(np.stack([frames[k] for k in range(first, last)]), crf)

    write_frames(directory / path, groups(), GROUPS_PER_SHARD)
