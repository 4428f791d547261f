"""A checkpoint is complete or absent, and holds everything that the next step depends on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from file_operations import Operation, watched

from lehrling.datasets.errors import DamageError, StorageError
from lehrling.training.checkpoint import (
    STATE,
    Snapshot,
    optimizer_tensors,
    random_states,
    read,
    restore_optimizer,
    restore_random,
    steps,
    write,
)


def snapshot(step: int, **tensors: torch.Tensor) -> Snapshot:
    return Snapshot(
        step,
        trained=tensors or {"a.b": torch.full((2,), float(step))},
        average={"a.b": torch.zeros(2)},
        optimizer={"0.step": torch.tensor(3.0)},
        random=random_states(),
        sampler={"seed": 1, "rows": 9, "epoch": 0, "position": 4},
        made_of={"view": "key", "base": "hash"},
    )


def test_the_newest_is_read_as_it_was_written_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write(tmp_path, snapshot(step), keep=2)
    assert steps(tmp_path) == [10, 15]
    found = read(tmp_path)
    assert found is not None
    assert (found.step, found.sampler["position"], found.made_of) == (15, 4, {"view": "key", "base": "hash"})
    assert found.trained["a.b"].tolist() == [15.0, 15.0]
    assert (list(found.average), list(found.optimizer), set(found.random)) == (
        ["a.b"],
        ["0.step"],
        set(random_states()),
    )


def test_what_a_kill_leaves_behind_is_no_checkpoint(tmp_path: Path) -> None:
    assert read(tmp_path / "absent") is None
    write(tmp_path, snapshot(5), keep=2)
    (tmp_path / ".step-00000010.partial").mkdir()
    (tmp_path / ".step-00000010.partial" / STATE).write_text("{", encoding="utf-8")
    found = read(tmp_path)
    assert found is not None
    assert found.step == 5
    write(tmp_path, snapshot(10), keep=2)
    assert steps(tmp_path) == [5, 10]


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"step": 5}', '{"step": "x", "sampler": {}}'])
def test_a_state_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, snapshot(5), keep=1)
    (path / STATE).write_text(content, encoding="utf-8")
    with pytest.raises(DamageError, match=f"{path} cannot be read .*; delete it to resume from the one before"):
        read(tmp_path)


def test_the_state_is_json_that_people_can_read(tmp_path: Path) -> None:
    state = json.loads((write(tmp_path, snapshot(5), keep=1) / STATE).read_text(encoding="utf-8"))
    assert (state["step"], state["sampler"]["rows"]) == (5, 9)


def test_generators_continue_where_they_stood() -> None:
    kept = random_states()
    drawn = torch.rand(3)
    restore_random(kept)
    assert torch.equal(torch.rand(3), drawn)


def test_an_optimizer_continues_where_it_stood() -> None:
    def stepped(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    one = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.AdamW([one], lr=0.1)
    stepped(one, first)
    two = torch.nn.Parameter(one.detach().clone())
    second = torch.optim.AdamW([two], lr=0.1)
    restore_optimizer(second, {key: value.clone() for key, value in optimizer_tensors(first).items()})
    stepped(one, first)
    stepped(two, second)
    assert torch.equal(one, two)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_operation_costs_no_checkpoint_before(tmp_path: Path, code: int) -> None:
    write(tmp_path, snapshot(5), keep=2)
    number, met = 0, True
    while met:
        number, seen, told = number + 1, 0, ""

        def fail(operation: Operation, at: int = number) -> None:
            nonlocal seen
            if operation.kind in ("create", "write", "mkdir", "fsync", "rename"):
                seen += 1
                if seen == at:
                    raise OSError(code, os.strerror(code), operation.path)

        try:
            with watched(tmp_path, fail):
                write(tmp_path, snapshot(10), keep=2)
        except StorageError as error:
            told = str(error)
        assert "step-00000010" in told or not told
        met = seen >= number
        found = read(tmp_path)
        assert found is not None
        assert found.step in (5, 10) if met else found.step == 10
        assert 5 in steps(tmp_path)
        assert not list(tmp_path.glob(".*.partial"))
    assert number > 5
