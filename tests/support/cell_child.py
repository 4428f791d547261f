"""A cell in a process of its own: `python cell_child.py FOLDER` prints its address, and ends with its input."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from cell_rig import running


def main() -> None:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    with running(Path(sys.argv[1]), handshake={"heartbeat_timeout_ms": 5000}) as cell:
        sys.stdout.write(cell.opcua.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
