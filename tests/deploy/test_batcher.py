"""The thread that infers: what becomes of requests that still wait when it ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import Told
from watching import until

from lehrling.datasets.errors import InputError, LehrlingError
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


class Picky(Told):
    """Refuses a batch in which somebody asks for what it cannot do."""

    def act(self, name: str, observations: Sequence[Observation]) -> NDArray[np.float32]:
        chunks = super().act(name, observations)
        for place, seen in enumerate(observations):
            if seen.instruction == "too much":
                raise InputError("Expected an instruction of at most 48 tokens.")
            if seen.instruction == "nonsense":
                chunks[place] = np.nan
        return chunks


@pytest.mark.parametrize(("bad", "told"), [("too much", "at most 48 tokens"), ("nonsense", "not finite")])
def test_a_request_that_fails_spoils_no_other_of_its_batch(bad: str, told: str) -> None:
    actor = Picky()
    actor.open.clear()
    batcher = Batcher(actor, batch_max=4)
    held = batcher.ask("first", SEEN)
    until(held.running)
    good, wrong, last = (batcher.ask("first", replace(SEEN, instruction=text)) for text in ("do it", bad, "do that"))
    actor.open.set()
    assert held.result(20).batch == 1
    assert good.result(20).actions.shape == last.result(20).actions.shape
    assert np.isfinite(good.result(0).actions).all()
    with pytest.raises(LehrlingError, match=told):
        wrong.result(20)
    assert [size for _, size in actor.batches] == [1, 3, 1, 1, 1]
    batcher.stop()
