"""The thread that infers: what becomes of requests that still wait when it ends."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from serving import Told
from watching import until

from lehrling.deploy.batcher import Batcher, BusyError
from lehrling.training.protocol import Observation

SEEN = Observation({"front": np.zeros((2, 2, 3), np.uint8)}, np.zeros(2, np.float32), "do it")


def test_who_waits_is_told_that_the_server_stops_also_behind_one_that_gave_up() -> None:
    actor = Told()
    actor.open.clear()
    batcher = Batcher(actor, batch_max=1)
    first, second, third = (batcher.ask("first", SEEN) for _ in range(3))
    until(first.running)
    assert second.cancel()
    ending = threading.Thread(target=batcher.stop)
    ending.start()
    until(lambda: batcher._stopped)
    actor.open.set()
    ending.join(20)
    assert not ending.is_alive()
    assert first.result(0).batch == 1
    with pytest.raises(BusyError, match="stops"):
        third.result(0)
