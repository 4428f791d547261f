"""What every bag holds: channels, messages, and perhaps a place where it ends too early."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.datasets.errors import DamageError

MESSAGE_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class BagChannel:
    """A topic as a bag declares it.

    Attributes:
        encoding: of its messages; `cdr` is the only one taken.
        definition: the type's definition as text, empty where the bag has none.
    """

    topic: str
    msgtype: str
    encoding: str = "cdr"
    definition: str = ""


@dataclass(frozen=True, slots=True)
class BagMessage:
    """A message as recorded.

    Attributes:
        received_ns: the bag's log time.
        publish_ns, sequence: None where the bag does not tell.
    """

    channel: BagChannel
    cdr: bytes
    received_ns: int
    publish_ns: int | None = None
    sequence: int | None = None


class BagCutError(DamageError):
    """The bag cannot be read further; everything before was given.

    Attributes:
        file: name of the file.
        offset: bytes of it that could be read; -1 where that is not known.
        reason: what is wrong there.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        where = f" after {offset} bytes" if offset >= 0 else ""
        super().__init__(f"{file} can be read no further{where}: {reason}.")
        self.file, self.offset, self.reason = file, offset, reason
