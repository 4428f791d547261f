"""A second door of the policy server: GR00T's protocol over ZMQ, so that its `PolicyClient` works unchanged.

A request is a msgpack map `{endpoint, data, api_token}`, arrays are `.npy` bytes in `{__ndarray_class__, as_npy}`; endpoints are
`ping`, `get_action`, `reset` and `get_modality_config` (Isaac-GR00T, gr00t/policy/server_client.py). There is no `kill`. Cameras
and state are grouped as GR00T groups them: `video/<camera>` (1, T, h, w, 3), `state/<stream>` (1, T, d), `language/<any>` [[text]];
actions come back as `<stream>` (1, H, d). Of T only the newest counts.
"""

from __future__ import annotations

import asyncio
import io
import reprlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import zmq
import zmq.asyncio
from numpy.lib import format as npy

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy import wire
from lehrling.deploy.api_keys import Keys, Refusal
from lehrling.deploy.batcher import Batcher
from lehrling.deploy.requests import Request, RequestError, Served, check
from lehrling.deploy.server_metrics import ServerMetrics
from lehrling.deploy.wire import DIMENSIONS_MAX, FRAME_BYTES_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY, NPY, CONFIG, JSON = "__ndarray_class__", "as_npy", "__ModalityConfig_class__", "as_json"
LANGUAGE = "annotation.human.task_description"
WAITING_MAX, HEADER_BYTES_MAX = 64, 4096
_magic: Any = npy.read_magic
_HEADERS: dict[Any, Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
ENDPOINTS = ("ping", "get_action", "reset", "get_modality_config")


def pack(content: object) -> bytes:
    """Return a message."""
    packed: bytes = msgpack.packb(content, default=_encoded)
    return packed


def _encoded(value: object) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return {ARRAY: True, NPY: out.getvalue()}
    raise TypeError(type(value).__name__)


def unpack(message: bytes) -> dict[str, Any]:
    """Return the map of a message; arrays are read-only views of it.

    Raises:
        RequestError: it is none, or holds what is no plain array.
    """
    try:
        return wire.unpack(message, hook=_decoded)
    except wire.WireError as error:
        raise RequestError(str(error)) from error


def _decoded(found: dict[Any, Any]) -> Any:
    return _array(found.get(NPY)) if ARRAY in found else found


def _array(data: object) -> NDArray[Any]:
    """Return the array of `.npy` bytes; nothing is allocated for what a header only claims."""
    if not isinstance(data, bytes):
        raise RequestError(f"Expected {NPY} as the bytes of an .npy file.")
    stream = io.BytesIO(data)
    try:
        read = _HEADERS[_magic(stream)]
        shape, fortran, dtype = read(stream, max_header_size=HEADER_BYTES_MAX)
    except (ValueError, KeyError, TypeError, SyntaxError, OverflowError) as error:
        raise RequestError(f"Expected the bytes of an .npy file, got {len(data)} that are none.") from error
    if dtype.kind not in "biuf" or len(shape) > DIMENSIONS_MAX:
        raise RequestError(f"Expected an array of numbers of at most {DIMENSIONS_MAX} dimensions, got {dtype} {shape}.")
    rest = data[stream.tell() :]
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(rest):
        raise RequestError(f"Expected the bytes of an array {reprlib.repr(shape)} of {dtype}, got {len(rest)}.")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")


class GrootFront:
    """Serves the first policy, or that which `options` names as `adapter`, on the event loop of a policy server.

    Attributes:
        answered: requests.
    """

    def __init__(
        self, batcher: Batcher, served: Mapping[str, Served], keys: Keys, metrics: ServerMetrics, host: str, port: int
    ) -> None:
        self._batcher, self._served, self._keys, self._metrics = batcher, dict(served), keys, metrics
        self._host, self._wanted = host, port
        self._checking = ThreadPoolExecutor(2, "groot")
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self.port = self.answered = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is taken or not this machine's.
        """
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, WAITING_MAX)
        try:
            self._socket.bind(f"tcp://{self._host}:{self._wanted or '*'}")
        except zmq.ZMQError as error:
            await self.stop()
            raise InputError(f"Cannot listen on {self._host}:{self._wanted} for GR00T ({error}).") from error
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Close the socket; what is being answered is given up."""
        for task in (*self._tasks, *([self._running] if self._running else [])):
            task.cancel()
        self._socket.close(0)
        self._context.term()
        self._checking.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            if len(frames) != 3 or len(self._tasks) >= WAITING_MAX:
                continue
            task = asyncio.create_task(self._answer(frames[0], frames[2]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, client: bytes, message: bytes) -> None:
        try:
            reply = await self._reply(message)
        except Exception as error:  # noqa: BLE001 — a client's message must not end the server
            self._metrics.complained(error)
            known = isinstance(error, LehrlingError)
            reply = {"error": str(error)[:500] if known else f"The policy failed ({type(error).__name__})."}
        self.answered += 1
        await self._socket.send_multipart([client, b"", pack(reply)])

    async def _reply(self, message: bytes) -> object:
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._checking, unpack, message)
        token = content.get("api_token")
        header = [f"Api-Key {token}"] if isinstance(token, str) else []
        allowed = self._keys.check(header, "infer")
        if isinstance(allowed, Refusal):
            raise RequestError(allowed.text)
        endpoint = content.get("endpoint", "get_action")
        if endpoint not in ENDPOINTS:
            raise RequestError(f"There is no endpoint {reprlib.repr(endpoint)}; there are {', '.join(ENDPOINTS)}.")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "reset":
            return {}
        if endpoint == "get_modality_config":
            return modality_config(next(iter(self._served.values())))
        policy, request = await loop.run_in_executor(self._checking, self._check, content.get("data"))
        inferred = await asyncio.wrap_future(self._batcher.ask(policy.name, request.observation))
        self._metrics.requests.labels(policy.name, "answered").inc()
        self._metrics.total_s.observe(time.perf_counter() - began)
        return [grouped(inferred.actions, policy.spec.action_names), {"infer_ms": inferred.infer_s * 1e3}]

    def _check(self, data: object) -> tuple[Served, Request]:
        if not isinstance(data, dict) or not isinstance(data.get("observation"), dict):
            raise RequestError("Expected data with an observation.")
        options = data.get("options") or {}
        name = options.get("adapter") if isinstance(options, dict) else None
        if name is not None and (not isinstance(name, str) or name not in self._served):
            raise RequestError(f"There is no adapter {reprlib.repr(name)} here; there are {', '.join(self._served)}.")
        policy = self._served[name] if name is not None else next(iter(self._served.values()))
        return policy, check(flat(data["observation"], policy), policy)


def flat(observation: Mapping[str, Any], policy: Served) -> dict[str, Any]:
    """Return GR00T's nested observation as the request that the websocket's clients send.

    Raises:
        RequestError: a group or a key is missing, or of another shape.
    """
    video, state = _group(observation, "video"), _group(observation, "state")
    images = {f"observation/{camera}": _newest(video, camera, 5, "video") for camera in policy.spec.cameras}
    numbers = [_newest(state, group, 3, "state") for group in groups(policy.spec.state_names)]
    whole = np.concatenate(numbers) if numbers else np.zeros(0, np.float32)
    return {**images, "observation/state": whole, "prompt": _text(_group(observation, "language"))}


def _group(observation: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = observation.get(name)
    if not isinstance(found, dict):
        raise RequestError(f"Expected an observation with video, state and language; {name!r} is missing.")
    return found


def _newest(group: Mapping[str, Any], key: str, dimensions: int, name: str) -> NDArray[Any]:
    value = group.get(key)
    if not isinstance(value, np.ndarray) or value.ndim != dimensions or value.shape[0] != 1 or not value.shape[1]:
        raise RequestError(f"Expected {name}.{key} as one of a batch over time ({dimensions} dimensions).")
    newest: NDArray[Any] = value[0, -1]
    return newest


def _text(language: Mapping[str, Any]) -> str:
    value: object = next(iter(language.values()), None)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise RequestError("Expected language as [[text]], one instruction.")
    return value


def groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of each stream, from names `stream.element`, in order."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        found.setdefault(name.partition(".")[0], []).append(column)
    return found


def grouped(actions: NDArray[np.float32], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return a chunk (H, A) as GR00T's actions (1, H, d) by stream."""
    return {name: np.ascontiguousarray(actions[None, :, columns]) for name, columns in groups(names).items()}


def modality_config(policy: Served) -> dict[str, Any]:
    """Return what GR00T's clients ask for: which keys there are, and which steps."""
    spec = policy.spec
    steps = {"video": [0], "state": [0], "action": list(range(spec.chunk)), "language": [0]}
    keys = {
        "video": list(spec.cameras),
        "state": list(groups(spec.state_names)),
        "action": list(groups(spec.action_names)),
        "language": [LANGUAGE],
    }
    return {name: {CONFIG: True, JSON: {"delta_indices": steps[name], "modality_keys": keys[name]}} for name in steps}
