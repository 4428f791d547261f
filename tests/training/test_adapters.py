"""Several policies on one backbone: each acts as it does alone, and switching loads nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_policies import save_policy, seen

from lehrling.datasets.errors import InputError
from lehrling.training.adapters import AdapterBank
from lehrling.training.policy import load_policy


@pytest.fixture(scope="module")
def folders(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("policies")
    return {
        name: save_policy(root / name, checkpoint, seed, rank) for name, seed, rank in (("one", 1, 2), ("two", 2, 4))
    }


def test_each_policy_acts_as_it_does_alone_whatever_acted_before(folders: dict[str, Path]) -> None:
    bank = AdapterBank(folders)
    alone = {name: load_policy(folder).act([seen(3)]) for name, folder in folders.items()}
    assert np.abs(alone["one"] - alone["two"]).max() > 1e-4
    for name in ("one", "two", "two", "one", "two"):
        np.testing.assert_allclose(bank.act(name, [seen(3)]), alone[name], atol=1e-6)
        assert bank.active == name
    assert bank.names == ("one", "two")
    assert bank.spec("two") == load_policy(folders["two"]).spec


def test_switching_takes_less_than_fifty_milliseconds_and_no_memory(folders: dict[str, Path]) -> None:
    bank = AdapterBank(folders)
    parameters = sum(p.numel() for p in bank._backbone.parameters())
    times = []
    for name in ("one", "two") * 20:
        began = time.perf_counter()
        bank.switch(name)
        times.append(time.perf_counter() - began)
    assert float(np.median(times)) < 0.05
    assert sum(p.numel() for p in bank._backbone.parameters()) == parameters


def test_a_policy_of_another_base_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(folders["two"], other)
    description = json.loads((other / "policy.json").read_text())
    description["base"]["weights_sha256"] = "0" * 64
    (other / "policy.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="Policy 'other' cannot be served beside the others"):
        AdapterBank({"one": folders["one"], "other": other})


def test_a_name_that_is_not_there_and_no_name_at_all_are_refused(folders: dict[str, Path]) -> None:
    bank = AdapterBank({"one": folders["one"]})
    with pytest.raises(InputError, match="no policy 'two' here; there are one"):
        bank.act("two", [seen(3)])
    with pytest.raises(InputError, match="at least one"):
        AdapterBank({})
    assert not any(p.requires_grad for n, p in bank._backbone.named_parameters() if "lora" not in n)
    assert torch.is_grad_enabled()


def test_a_policy_may_have_any_name(folders: dict[str, Path]) -> None:
    """A module of torch has `train` and `eval` already, and a dot would be a path within it."""
    bank = AdapterBank({"train": folders["one"], "v1.2": folders["two"], "größe": folders["one"]})
    for name, folder in (("train", "one"), ("v1.2", "two"), ("größe", "one")):
        np.testing.assert_allclose(bank.act(name, [seen(3)]), load_policy(folders[folder]).act([seen(3)]), atol=1e-6)
