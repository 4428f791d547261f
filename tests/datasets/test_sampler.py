from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import InputError
from lehrling.datasets.sampler import EpisodeSampler, SamplerState, split_episodes

GOLDEN_ORDER = [7, 0, 1, 6, 5, 2, 3, 4]


def test_an_epoch_draws_every_row_once_in_another_order_each_time() -> None:
    sampler = EpisodeSampler(np.arange(12), 4, seed=7)
    first = np.concatenate([next(sampler) for _ in range(3)])
    second = np.concatenate([next(sampler) for _ in range(3)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert first.tolist() != second.tolist()
    assert sampler.epoch == 1


def test_the_order_follows_from_the_seed_and_never_changes() -> None:
    order = EpisodeSampler(np.arange(8), 1, seed=0).permutation(0).tolist()
    assert order == EpisodeSampler(np.arange(8), 4, seed=0).permutation(0).tolist()
    assert order != EpisodeSampler(np.arange(8), 1, seed=1).permutation(0).tolist()
    assert order == GOLDEN_ORDER


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 30), st.integers(0, 2**32))
def test_a_resumed_sampler_continues_with_the_next_batch(rows: int, batch: int, n: int, seed: int) -> None:
    batch = min(batch, rows)
    sampler = EpisodeSampler(np.arange(rows), batch, seed)
    for _ in range(n):
        next(sampler)
    state: SamplerState = json.loads(json.dumps(sampler.state_dict()))
    resumed = EpisodeSampler(np.arange(rows), batch, seed).load_state_dict(state)
    for _ in range(7):
        assert next(sampler).tolist() == next(resumed).tolist()


def test_a_state_of_other_rows_is_refused() -> None:
    state = EpisodeSampler(np.arange(8), 2, seed=3).state_dict()
    with pytest.raises(InputError, match="seed 3 over 9 rows, got seed 3 over 8"):
        EpisodeSampler(np.arange(9), 2, seed=3).load_state_dict(state)


def test_a_batch_larger_than_the_view_is_refused() -> None:
    with pytest.raises(InputError, match="batch of 4 rows, got 3 rows"):
        EpisodeSampler(np.arange(3), 4)


def test_the_split_keeps_episodes_whole_and_is_the_same_every_time() -> None:
    ids = [f"episode-{n}" for n in range(20)]
    training, validation = split_episodes(ids, 0.2, seed=1)
    assert len(validation) == 4
    assert sorted(training + validation) == list(range(20))
    assert split_episodes(ids, 0.2, seed=1) == (training, validation)
    assert split_episodes(ids, 0.2, seed=2) != (training, validation)


def test_adding_episodes_moves_few_of_the_others_across_the_split() -> None:
    ids = [f"episode-{n}" for n in range(40)]
    before = {ids[k] for k in split_episodes(ids[:20], 0.25)[1]}
    after = {ids[k] for k in split_episodes(ids, 0.25)[1]}
    assert len(before - after) <= 3


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="more than 1 episodes to split, got 1"):
        split_episodes(["one"], 0.1)
    assert split_episodes(["one"], 0.0) == ([0], [])
