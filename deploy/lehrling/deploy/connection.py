"""A WebSocket connection for code that waits: one thread runs it, TLS included.

`websockets` has a client for threads, but that one reads in one thread and writes in another, and Python's `ssl` lets both
into the same session at once (python/cpython#143756): one TLS connection in some hundred to thousand lost its handshake or
its first message.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from ssl import SSLContext
from typing import Any, Self

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.protocol import State

CLOSE_S = 10.0


class Connection:
    """A connection to a server; every call waits."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: SSLContext | None = None,
        bytes_max: int | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Connect.

        Args:
            url: ws:// or wss://.
            headers: of the request that opens it.
            tls: whom to trust; for wss:// alone.
            bytes_max: size of the largest message that is taken.
            timeout_s: for the whole handshake.

        Raises:
            InvalidStatus: the server refused.
            OSError, WebSocketException: nobody is there, or not in time, or nobody who is trusted.
        """
        self._loop, self._lock, self._ended = asyncio.new_event_loop(), threading.Lock(), False
        self._thread = threading.Thread(target=self._loop.run_forever, name="connection", daemon=True)
        self._thread.start()
        try:
            self._socket = self._done(self._opened(url, headers or {}, tls, bytes_max, timeout_s))
        except BaseException:
            self._end()
            raise

    @staticmethod
    async def _opened(
        url: str, headers: Mapping[str, str], tls: SSLContext | None, bytes_max: int | None, timeout_s: float
    ) -> Any:
        return await connect(
            url, additional_headers=headers, compression=None, max_size=bytes_max, ssl=tls, open_timeout=timeout_s
        )

    def _done[Result](self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._lock:
            if self._ended:
                work.close()
                raise ConnectionAbortedError("the connection is closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ConnectionAbortedError("the connection was closed here") from None
        except BaseException:
            future.cancel()
            raise

    @property
    def open(self) -> bool:
        """Whether it is open, as far as this side knows."""
        return bool(self._socket.state is State.OPEN)

    def send(self, message: bytes | str) -> None:
        """Send a message: bytes in a binary frame, text in a text frame.

        Raises:
            OSError, WebSocketException: the connection is lost.
        """
        self._done(self._socket.send(message))

    def recv(self, timeout_s: float | None = None) -> bytes | str:
        """Return the next message.

        Raises:
            TimeoutError: none came.
            OSError, WebSocketException: the connection is lost.
        """
        return self._done(self._received(timeout_s))

    def exchange(self, message: bytes | str, timeout_s: float | None = None) -> bytes | str:
        """Send a message and return the next one that comes; raises what `send` and `recv` do."""
        return self._done(self._exchanged(message, timeout_s))

    async def _received(self, timeout_s: float | None) -> bytes | str:
        async with asyncio.timeout(timeout_s):
            message: bytes | str = await self._socket.recv()
            return message

    async def _exchanged(self, message: bytes | str, timeout_s: float | None) -> bytes | str:
        await self._socket.send(message)
        return await self._received(timeout_s)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        with contextlib.suppress(OSError, TimeoutError, WebSocketException):
            self._done(self._closed())
        self._end()

    async def _closed(self) -> None:
        async with asyncio.timeout(CLOSE_S):
            await self._socket.close()

    def _end(self) -> None:
        """End the thread, once; whoever still waits in another one is told."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
