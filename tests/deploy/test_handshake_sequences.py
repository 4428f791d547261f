"""The handshake's promises in random sequences of commands, lost heartbeats, permissions and faults."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from cell_sequences import STEP_BYTES, run_sequence
from figures import note
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHORT, LONG = 400, 100_000
STEPS = 40
reached: Counter[str] = Counter()
sequences = st.binary(min_size=STEP_BYTES * STEPS, max_size=STEP_BYTES * STEPS)
quiet = list(HealthCheck)


@given(sequences)
@settings(max_examples=SHORT, deadline=None, suppress_health_check=quiet)
def test_random_sequences_keep_every_rule(data: bytes) -> None:
    run_sequence(data, reached)


def test_such_sequences_reach_cycles_errors_and_losses() -> None:
    """So that the rules are not kept by doing nothing."""
    seen: Counter[str] = Counter()
    for _ in range(300):
        run_sequence(os.urandom(STEP_BYTES * STEPS), seen)
    for what in ("start", "done", "error", "lost", "success", "aborted", "Load", "Reset"):
        assert seen[what] > 10, (what, seen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_random_sequences_keep_every_rule() -> None:
    seen: Counter[str] = Counter()

    @given(sequences)
    @settings(max_examples=LONG, deadline=None, suppress_health_check=quiet, database=None)
    def run(data: bytes) -> None:
        run_sequence(data, seen)

    run()
    assert seen["sequences"] >= LONG
    assert min(seen["start"], seen["done"], seen["error"], seen["lost"]) > LONG // 20
    note("random handshake sequences: rules broken", 0, "rules", "sequences", seen["sequences"], "none", met=True)
