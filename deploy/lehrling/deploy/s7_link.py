"""The handshake over S7: a PLC's data block, read and written by PUT/GET (python-snap7).

PUT/GET has no user, no password and no encryption: whoever reaches the PLC's port can write the block, and so start the
robot. Keep it on a network of its own; where the PLC can, use OPC UA.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from lehrling.datasets.errors import InputError
from lehrling.deploy.cell_config import CellConfig, S7Config
from lehrling.deploy.cell_exchange import Exchange
from lehrling.deploy.s7_layout import (
    COMMAND,
    COMMAND_AT,
    HASH_AT,
    STATUS_AT,
    read_commands,
    status_block,
    text_block,
)

RETRY_S = 0.5
WARNING = (
    "S7 PUT/GET to %s:%d knows no user and no encryption: whoever reaches that port can command the robot. "
    "Keep it on a network of its own, or use OPC UA."
)
Told = Callable[[str], None]
_log = logging.getLogger("lehrling.cell")


class S7Link:
    """Copies both images until stopped; a PLC that is away is tried again, by a new client object.

    Attributes:
        connections: made so far.
        failures: of connecting, reading or writing.
    """

    def __init__(self, config: CellConfig, exchange: Exchange, told: Told | None = None) -> None:
        """Take what to copy.

        Raises:
            InputError: the configuration has no part `s7`, or python-snap7 is not installed.
        """
        if config.s7 is None:
            raise InputError("Expected the part s7 in the cell's configuration.")
        try:
            import snap7  # noqa: F401
        except ImportError as error:
            raise InputError("The part s7 needs python-snap7: install `lehrling-deploy[s7]`.") from error
        self._s7: S7Config = config.s7
        self._commands = config.handshake.commands_from == "s7"
        self._period_s = config.handshake.cycle_ms / 1e3
        self._exchange, self._told = exchange, told or (lambda _: None)
        self.connections = self.failures = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="s7", daemon=True)

    def start(self) -> None:
        """Begin to connect; warn once."""
        _log.warning(WARNING, self._s7.host, self._s7.port)
        self._told(WARNING % (self._s7.host, self._s7.port))
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 (a PLC may answer anything; the link is made anew)
                self.failures += 1
                if self.failures == 1 or self.failures % 100 == 0:
                    _log.warning("S7 %s:%d: %s (%d times so far)", self._s7.host, self._s7.port, error, self.failures)
                self._ending.wait(RETRY_S)

    def _copy(self) -> None:
        """Connect, and copy until that fails."""
        from snap7.client import Client
        from snap7.error import S7Error

        client = Client()
        try:
            client.connect(self._s7.host, self._s7.rack, self._s7.slot, self._s7.port)
            self.connections += 1
            texts = b""
            while not self._ending.is_set():
                texts = self._once(client.db_read, client.db_write, texts)
                self._ending.wait(self._period_s)
        finally:
            with contextlib.suppress(S7Error, OSError, RuntimeError):
                client.disconnect()

    def _once(
        self, read: Callable[[int, int, int], bytearray], write: Callable[[int, int, bytearray], int], texts: bytes
    ) -> bytes:
        """Read commands, write the status; its texts first, and only where they changed. Return them."""
        block = self._s7.db
        if self._commands:
            self._exchange.write(**read_commands(bytes(read(block, COMMAND_AT, COMMAND.size))))
        status = self._exchange.shown().status
        now = text_block(status)
        if now != texts:
            write(block, HASH_AT, bytearray(now))
        write(block, STATUS_AT, bytearray(status_block(status)))
        return now
