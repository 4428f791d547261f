"""The policy server: openpi's websocket frames, so that existing clients work unchanged, and plain HTTP for operators.

Hello, then one frame in and one out; a mistake is answered by one short text frame and the end of the connection. The
event loop only moves frames and checks small ones; preparing images and inference are other threads'.
"""

from __future__ import annotations

import asyncio
import http
import ipaddress
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.api_keys import Keys, Refusal, Scope
from lehrling.deploy.batcher import Actor, Batcher, BusyError
from lehrling.deploy.requests import Request, Served, adapter_of, check
from lehrling.deploy.server_metrics import ServerMetrics
from lehrling.deploy.wire import FRAME_BYTES_MAX, pack, unpack
from lehrling.training.protocol import Observation

if TYPE_CHECKING:
    from lehrling.deploy.groot_front import GrootFront

PROTOCOL = 1
ERROR_CHARACTERS_MAX = 500
PLAIN_BYTES_MAX = 1 << 20
"""A frame of up to this size, whose images nobody has to prepare, is checked in 0.1 ms: as long as a thread would take to begin."""
Shadow = Callable[[Request, np.ndarray[Any, Any]], None]
"""Told what would have been done."""
_log = logging.getLogger("lehrling.serve")


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        keys: who may do what; empty: everybody on this machine.
        tls: certificate (chain) and key, as PEM files.
        frame_bytes_max: larger frames are refused.
        clients_max: connections at once; more are refused with 503.
        batch_max: requests inferred together.
        max_age_s: older observations are refused, which GR00T's clients cannot be held to; None: any age.
        groot_port: also serve GR00T's clients here, which know no TLS: from this machine alone; None: do not.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Keys = field(default_factory=Keys)
    tls: tuple[Path, Path] | None = None
    frame_bytes_max: int = FRAME_BYTES_MAX
    clients_max: int = 64
    batch_max: int = 16
    max_age_s: float | None = None
    groot_port: int | None = None
    ping_s: float = 20.0

    def __post_init__(self) -> None:
        """Refuse to be reached from outside by anybody, and to promise what cannot be kept.

        Raises:
            InputError: the address is not this machine's own, and key or TLS is missing; or GR00T's clients are held to an age.
        """
        if not is_loopback(self.host) and (not self.keys.known or self.tls is None):
            raise InputError(
                f"Serving on {self.host} can be reached from other machines, which needs --keys and --tls-cert with "
                "--tls-key; or serve on 127.0.0.1."
            )
        if self.groot_port is not None and not is_loopback(self.host):
            raise InputError(
                f"GR00T's protocol knows no TLS, so that it is served on this machine alone, not on {self.host}; let clients "
                "come through a tunnel."
            )
        if self.groot_port is not None and self.max_age_s is not None:
            raise InputError(
                "GR00T's protocol does not say when an observation was made, so that --max-age cannot be kept with "
                "--groot-port; leave one of them out."
            )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context of TLS 1.2 or later.

    Raises:
        InputError: a file is missing, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"Expected a certificate {certificate} and its key {key} as PEM files: {error}.") from error
    return context


class PolicyServer:
    """Serves policies until stopped; `start` and `stop` are for the thread that made it."""

    def __init__(
        self,
        actor: Actor,
        served: Mapping[str, Served],
        options: ServeOptions | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._actor, self._served, self._shadow = actor, dict(served), shadow
        self._options = options or ServeOptions()
        self._tls = tls_context(*self._options.tls) if self._options.tls else None
        self.metrics = ServerMetrics()
        self._batcher = Batcher(actor, self._options.batch_max, seen=self.metrics.batch_done)
        self._checking = ThreadPoolExecutor(2, "checking")
        self._plain = all(policy.view is None for policy in self._served.values())
        self._clients = 0
        self._warm = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._listening: WebSocketServer | None = None
        self._groot: GrootFront | None = None
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._listening is not None
        return int(next(iter(self._listening.sockets)).getsockname()[1])

    @property
    def serves_groot(self) -> bool:
        """Whether GR00T's clients are served; not in shadow mode."""
        return self._groot is not None

    @property
    def groot_port(self) -> int:
        """The port on which GR00T's clients are served."""
        assert self._groot is not None
        return self._groot.port

    @property
    def url(self) -> str:
        """Where clients connect to."""
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    @property
    def ready(self) -> bool:
        """Whether the policies have been warmed up."""
        return self._warm.is_set()

    def start(self, *, warm_up: bool = True) -> None:
        """Listen, and warm up; `/readyz` says when that is done.

        Raises:
            InputError: the address is taken or not this machine's.
            LehrlingError: a policy cannot act.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except InputError:
            self.stop()
            raise
        except OSError as error:
            self.stop()
            where = f"{self._options.host}:{self._options.port}"
            raise InputError(f"Cannot listen on {where} ({error.strerror or error}); choose another --port.") from error
        if warm_up:
            try:
                self.warm_up()
            except BaseException:
                self.stop()
                raise

    def warm_up(self) -> None:
        """Let every policy act once on nothing, alone and in a full batch: the first call is the slowest."""
        for served in self._served.values():
            seen = blank(served)
            for size in sorted({1, self._options.batch_max}):
                for future in [self._batcher.ask(served.name, seen) for _ in range(size)]:
                    future.result()
        self._warm.set()

    def stop(self) -> None:
        """Close every connection and end the threads."""
        if self._listening is not None:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._listening = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread.is_alive():
            self._thread.join()
        self._batcher.stop()
        self._checking.shutdown()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _listen(self) -> None:
        options = self._options
        self._listening = await serve(
            self._converse,
            options.host,
            options.port,
            process_request=self._http,
            max_size=options.frame_bytes_max,
            compression=None,
            ping_interval=options.ping_s,
            ping_timeout=options.ping_s,
            close_timeout=2,
            ssl=self._tls,
            server_header="lehrling",
            logger=logging.getLogger("lehrling.serve.websockets"),
        )
        if options.groot_port is not None and self._shadow is None:
            from lehrling.deploy.groot_front import GrootFront

            front = GrootFront(
                self._batcher, self._served, options.keys, self.metrics, options.host, options.groot_port
            )
            await front.start()
            self._groot = front

    async def _close(self) -> None:
        assert self._listening is not None
        if self._groot is not None:
            await self._groot.stop()
        self._listening.close()
        await self._listening.wait_closed()

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer plain HTTP, and refuse who may not connect; None lets a client in."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/readyz":
            if self.ready:
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "warming up\n")
        scope: Scope = "metrics" if path == "/metrics" else "infer"
        allowed = self._options.keys.check(request.headers.get_all("Authorization"), scope)
        if isinstance(allowed, Refusal):
            return self._refuse(connection, allowed)
        if scope == "metrics":
            response = connection.respond(http.HTTPStatus.OK, self.metrics.text().decode())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self._clients >= self._options.clients_max:
            return self._refuse(connection, Refusal(503, f"There are {self._clients} clients already."))
        return None

    def _refuse(self, connection: ServerConnection, refusal: Refusal) -> Response:
        self.metrics.refused.labels(str(refusal.status)).inc()
        _log.warning("refused %s: %s", connection.remote_address, refusal.text)
        return connection.respond(http.HTTPStatus(refusal.status), refusal.text + "\n")

    def _hello(self) -> dict[str, Any]:
        first = next(iter(self._served.values()))
        adapters = {name: served.hello() for name, served in self._served.items()}
        return {"server": "lehrling", "protocol": PROTOCOL, "shadow": self._shadow is not None, **first.hello()} | {
            "adapters": adapters
        }

    async def _converse(self, connection: ServerConnection) -> None:
        self._clients += 1
        self.metrics.clients.set(self._clients)
        try:
            await connection.send(pack(self._hello()))
            total_ms: float | None = None
            async for frame in connection:
                began = time.perf_counter()
                reply = await self._answer(frame)
                if total_ms is not None:
                    reply["server_timing"]["prev_total_ms"] = total_ms
                await connection.send(pack(reply))
                seconds = time.perf_counter() - began
                total_ms = seconds * 1e3
                self.metrics.total_s.observe(seconds)
        except ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001 — a client's frame must not end the server
            await self._complain(connection, error)
        finally:
            self._clients -= 1
            self.metrics.clients.set(self._clients)

    async def _complain(self, connection: ServerConnection, error: Exception) -> None:
        """Say what is wrong in one short text frame, as openpi's clients expect, and close."""
        self.metrics.complained(error)
        if isinstance(error, LehrlingError):
            text = str(error)
        else:
            _log.exception("a request failed")
            text = f"The policy failed ({type(error).__name__}); see the server's log."
        try:
            await connection.send(text[:ERROR_CHARACTERS_MAX])
            await connection.close(1013 if isinstance(error, BusyError) else 1011, type(error).__name__)
        except ConnectionClosed:
            pass

    async def _answer(self, frame: bytes | str) -> dict[str, Any]:
        if self._plain and len(frame) <= PLAIN_BYTES_MAX:
            request = self._check(frame)
        else:
            request = await self._loop.run_in_executor(self._checking, self._check, frame)
        inferred = await asyncio.wrap_future(self._batcher.ask(request.adapter, request.observation))
        self.metrics.requests.labels(request.adapter, "answered").inc()
        timing = {"infer_ms": inferred.infer_s * 1e3}
        reply: dict[str, Any] = {
            "server_timing": dict(timing),
            "policy_timing": {**timing, "batch": inferred.batch},
            "adapter": request.adapter,
        }
        if request.step is not None:
            reply["chunk_start_step"] = request.step
        if request.stamp_s is not None:
            reply["obs_stamp"] = request.stamp_s
        if self._shadow is not None:
            self._shadow(request, inferred.actions)
            return reply | {"shadow": True}
        return reply | {"actions": inferred.actions}

    def _check(self, frame: bytes | str) -> Request:
        content = unpack(frame, self._options.frame_bytes_max)
        return check(content, adapter_of(content, self._served), self._options.max_age_s)


def blank(served: Served) -> Observation:
    """Return an observation of nothing: black images, a state of zeros."""
    spec = served.spec
    px = spec.image_px or 64
    images = {camera: np.zeros((px, px, 3), np.uint8) for camera in spec.cameras}
    return Observation(images, np.zeros(len(spec.state_names), np.float32), "warm up")
