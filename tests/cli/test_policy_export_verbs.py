"""`lehrling export policy` and `lehrling bundle`, from a trained policy to what a robot opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_runs import Command
from made_once import made_once
from small_policies import save_checkpoint, save_policy, seen

from lehrling.deploy.bundle import open_bundle
from lehrling.training.export_policy import load_onnx
from lehrling.training.policy import load_policy


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save two policies on one small backbone, and one on another; not to be changed."""

    def make(folder: Path) -> None:
        checkpoint = save_checkpoint(folder / "base", seed=0)
        for seed, name in enumerate(("bolt", "nut")):
            save_policy(folder / name, checkpoint, seed)
        save_policy(folder / "stranger", save_checkpoint(folder / "other", seed=1), 2)

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture
def key(lehrling: Command, tmp_path: Path) -> Path:
    """Make a pair of keys; return the private one's path without its end."""
    assert lehrling("bundle", "key", tmp_path / "plant").code == 0
    return tmp_path / "plant"


@pytest.mark.parametrize("form", ["merged", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_says_how_far_it_is_from_the_policy(
    lehrling: Command, policies: Path, tmp_path: Path, form: str
) -> None:
    done = lehrling("export", "policy", policies / "nut", tmp_path / "out", "--as", form)
    assert done.code == 0, done.err
    assert "max difference from the policy " in done.err
    assert "over 8 random inputs" in done.err
    agreement = json.loads((tmp_path / "out" / "export.json").read_text())["agreement"]
    assert 0 <= agreement["max_difference"] <= agreement["tolerance"] == 1e-4
    opened = load_policy(tmp_path / "out") if form == "merged" else load_onnx(tmp_path / "out")
    np.testing.assert_allclose(opened.act([seen(1)]), load_policy(policies / "nut").act([seen(1)]), atol=1e-4)


def test_the_adapter_alone_is_exported_with_json(lehrling: Command, policies: Path, tmp_path: Path) -> None:
    done = lehrling("export", "policy", policies / "nut", tmp_path / "out", "--as", "adapter", "--json")
    assert done.code == 0
    assert done.data["kind"] == "adapter"
    assert set(done.data["files"]) == {path.name for path in (tmp_path / "out").iterdir()} - {"export.json"}


@pytest.mark.slow
def test_an_export_beyond_the_tolerance_fails_and_leaves_nothing(
    lehrling: Command, policies: Path, tmp_path: Path
) -> None:
    words = ("--as", "onnx", "--tolerance", "0")
    done = lehrling("export", "policy", policies / "nut", tmp_path / "out", *words)
    assert done.refused("ONNX graph differs", "nothing was written", code=1)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused(lehrling: Command, policies: Path, tmp_path: Path) -> None:
    assert lehrling("export", "policy", tmp_path, tmp_path / "out", "--as", "merged").refused("policy.json")
    assert lehrling("export", "policy", policies / "nut", tmp_path, "--as", "adapter").refused("not there yet")
    assert lehrling("export", "policy", policies / "nut", tmp_path / "out").refused("--as", sentences=3)
    assert lehrling("export", "policy", policies / "nut", tmp_path / "o", "--as", "pickle").refused("merged", "onnx")
    words = (policies / "nut", tmp_path / "o", "--as", "merged", "--seed", -1)
    assert lehrling("export", "policy", *words).refused("--seed", "greater than or equal to 0")


@pytest.mark.parametrize("name", ["cell7", "cell7.tar"])
def test_a_bundle_goes_from_policies_to_a_robot_without_anything_else(
    lehrling: Command, policies: Path, key: Path, tmp_path: Path, name: str
) -> None:
    words = (
        policies / "bolt",
        f"second={policies / 'nut'}",
        "--key",
        f"{key}.key",
        "--with-base",
        "--embodiment",
        "arm6",
    )
    made = lehrling("bundle", "make", tmp_path / name, *words)
    assert made.code == 0, made.err
    assert "policies bolt, second" in made.err
    seen_whole = lehrling("bundle", "verify", tmp_path / name, "--key", f"{key}.pub")
    assert seen_whole.code == 0
    assert "with base, embodiment" in seen_whole.err
    assert lehrling("bundle", "verify", tmp_path / name, "--key", f"{key}.pub", "--json").data["policies"] == [
        "bolt",
        "second",
    ]
    folder = open_bundle(tmp_path / name, Path(f"{key}.pub"))
    carried = load_policy(folder / "policies" / "second", base=str(folder / "base"))
    np.testing.assert_array_equal(carried.act([seen(3)]), load_policy(policies / "nut").act([seen(3)]))


@pytest.mark.slow
def test_a_merged_policy_and_an_onnx_one_travel_whole(
    lehrling: Command, policies: Path, key: Path, tmp_path: Path
) -> None:
    for form in ("merged", "onnx"):
        assert lehrling("export", "policy", policies / "nut", tmp_path / form, "--as", form).code == 0
    made = lehrling("bundle", "make", tmp_path / "b.tar", tmp_path / "merged", tmp_path / "onnx", "--key", f"{key}.key")
    assert made.code == 0, made.err
    shutil.rmtree(tmp_path / "merged")
    folder = open_bundle(tmp_path / "b.tar", Path(f"{key}.pub")) / "policies"
    wanted = load_policy(policies / "nut").act([seen(1)])
    merged = load_policy(folder / "merged", base=str(folder / "merged" / "model"))
    np.testing.assert_allclose(merged.act([seen(1)]), wanted, atol=1e-4)
    np.testing.assert_allclose(load_onnx(folder / "onnx").act([seen(1)]), wanted, atol=1e-4)


def test_a_changed_bundle_fails(lehrling: Command, policies: Path, key: Path, tmp_path: Path) -> None:
    assert lehrling("bundle", "make", tmp_path / "b", policies / "nut", "--key", f"{key}.key").code == 0
    (tmp_path / "b" / "policies" / "nut" / "policy.json").write_text("{}")
    done = lehrling("bundle", "verify", tmp_path / "b", "--key", f"{key}.pub")
    assert done.refused("policies/nut/policy.json", "was changed", code=1)


def test_a_bundle_of_the_wrong_base_is_refused(lehrling: Command, policies: Path, key: Path, tmp_path: Path) -> None:
    words = ("--key", f"{key}.key")
    nut, stranger, out = policies / "nut", policies / "stranger", tmp_path / "b"
    assert lehrling("bundle", "make", out, nut, "--base", policies / "other", *words).refused("stands on weights")
    assert lehrling("bundle", "make", out, nut, stranger, "--with-base", *words).refused("policies of one base")
    assert lehrling("bundle", "make", out, nut, nut, *words).refused("a name of its own")
    assert lehrling("bundle", "make", out, tmp_path, "--with-base", *words).refused("policy.json")
    assert not out.exists()


def test_keys_are_told_by_a_short_name(lehrling: Command, key: Path, policies: Path, tmp_path: Path) -> None:
    assert lehrling("bundle", "key", key).refused("never replaced")
    made = lehrling("bundle", "key", tmp_path / "two", "--json").data
    assert made["private"] == str(tmp_path / "two.key")
    assert lehrling("bundle", "make", tmp_path / "b", policies / "nut", "--key", f"{key}.key").code == 0
    done = lehrling("bundle", "verify", tmp_path / "b", "--key", tmp_path / "two.pub")
    assert done.refused(made["key"], "another key signed it", code=1)
