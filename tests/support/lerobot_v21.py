"""A dataset in LeRobot's older format v2.1, written by hand: a table and videos per episode, lists as JSON lines."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FPS, SIZE = 10, (48, 64)
TASKS = ("push the cube", "open the drawer")
CAMERA = "observation.images.laptop"


def state(episode: int, frames: int) -> NDArray[np.float32]:
    """Return what an episode's state is."""
    return np.random.default_rng(episode).random((frames, 3)).astype(np.float32)


def picture(episode: int, frame: int) -> NDArray[np.uint8]:
    """Return a frame that tells its number and its episode's apart."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0], image[..., 1] = 20 * frame, 80 * episode
    return image


def write_v21(root: Path, lengths: tuple[int, ...] = (5, 7, 6), version: str = "v2.1") -> Path:
    """Write a dataset with episodes of these lengths."""
    (root / "meta").mkdir(parents=True)
    rows, episodes = 0, []
    for number, frames in enumerate(lengths):
        _table(root, number, frames, rows)
        _video(root / f"videos/chunk-{number // 2:03d}/{CAMERA}/episode_{number:06d}.mp4", number, frames)
        task = TASKS[number % 2]
        episodes.append({"episode_index": number, "tasks": [task], "length": frames})
        rows += frames
    tasks = [{"task_index": number, "task": text} for number, text in enumerate(TASKS)]
    for name, lines in (("tasks", tasks), ("episodes", episodes)):
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = _info(len(lengths), rows) | {"codebase_version": version}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def _info(episodes: int, frames: int) -> dict[str, Any]:
    one = {"shape": [1], "names": None}
    features: dict[str, Any] = {
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["left", "right"]}},
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
        CAMERA: {
            "dtype": "video",
            "shape": [*SIZE, 3],
            "names": ["height", "width", "channel"],
            "info": {"video.fps": float(FPS), "video.codec": "h264", "video.is_depth_map": False},
        },
        "timestamp": {"dtype": "float32", **one},
        **{name: {"dtype": "int64", **one} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    return {
        "codebase_version": "v2.1",
        "robot_type": "Koch-v1.1",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": 2,
        "total_videos": episodes,
        "total_chunks": 2,
        "chunks_size": 2,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }


def _table(root: Path, number: int, frames: int, first: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / f"data/chunk-{number // 2:03d}/episode_{number:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.arange(frames)
    values = state(number, frames)
    columns = {
        "action": pa.array(values[:, :2].tolist(), pa.list_(pa.float32(), 2)),
        "observation.state": pa.array(values.tolist(), pa.list_(pa.float32(), 3)),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": frame,
        "episode_index": np.full(frames, number),
        "index": first + frame,
        "task_index": np.full(frames, number % 2),
    }
    pq.write_table(pa.table(columns), path)


def _video(path: Path, number: int, frames: int) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "2", "crf": "10"})
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, FPS)
        for frame in range(frames):
            image = av.VideoFrame.from_ndarray(picture(number, frame), format="rgb24")
            image.pts, image.time_base = frame, Fraction(1, FPS)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
