"""`lehrling serve` and `lehrling run` on signed bundles: verified before anything is loaded, and all that a robot needs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import Command
from made_once import made_once
from small_policies import save_checkpoint, save_policy, seen

from lehrling.cli.bundle_source import find_policies
from lehrling.datasets.errors import InputError
from lehrling.deploy.bundle_keys import make_keys
from lehrling.deploy.bundle_make import BundleParts, make_bundle
from lehrling.deploy.client import PolicyClient
from lehrling.training.export_merged import export_merged
from lehrling.training.policy import load_policy


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make bundles of two policies with their base, which is gone elsewhere, and what they were made of; not to be changed."""

    def make(folder: Path) -> None:
        private, _ = make_keys(folder / "plant")
        make_keys(folder / "other")
        checkpoint = save_checkpoint(folder / "base", seed=0)
        policies = {name: save_policy(folder / name, checkpoint, seed) for seed, name in enumerate(("bolt", "nut"))}
        export_merged(policies["nut"], folder / "merged")
        (folder / "guard.yaml").write_text("clamps_max: 7\n")
        for form in ("cell7", "cell7.tar"):
            make_bundle(BundleParts(policies, checkpoint, "arm6", folder / "guard.yaml"), folder / form, private)
        make_bundle(BundleParts({"one": folder / "merged"}), folder / "merged.tar", private)
        np.save(folder / "wanted.npy", load_policy(policies["nut"]).act([seen(1)]))
        shutil.rmtree(checkpoint)
        shutil.rmtree(folder / "merged")

    return made_once(tmp_path_factory, "bundled", make)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    """Copy the bundles, to be changed at will."""
    return Path(shutil.copytree(bundles, tmp_path / "copied"))


@pytest.mark.parametrize("form", ["cell7", "cell7.tar"])
def test_a_bundle_is_served_with_the_base_that_it_brings(lehrling: Command, copied: Path, form: str) -> None:
    served = lehrling("serve", copied / form, "--bundle-key", copied / "plant.pub", "--check", "--json")
    assert served.code == 0, served.err
    assert list(served.data) == ["bolt", "nut"]
    assert f"{form} is as key " in served.err


@pytest.mark.parametrize("form", ["cell7", "cell7.tar"])
def test_a_bundle_is_not_loaded_before_it_is_verified(
    lehrling: Command, copied: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehrling.deploy.policy_server.make_server", lambda *_, **__: pytest.fail("loaded"))
    words = ("serve", copied / form, "--check")
    assert lehrling(*words).refused("is a bundle", "--bundle-key")
    assert lehrling(*words, "--bundle-key", copied / "other.pub").refused("another key signed it", code=1)
    assert lehrling(*words, "--bundle-key", copied / "none.pub").refused("none.pub")
    named = (words[0], f"left={copied / form}", *words[2:])
    assert lehrling(*named, "--bundle-key", copied / "plant.pub").refused("names its policies itself")
    if form == "cell7":
        (copied / form / "policies" / "nut" / "policy_head.safetensors").write_bytes(b"evil")
    else:
        content = bytearray((copied / form).read_bytes())
        content[len(content) // 2] ^= 1
        (copied / form).write_bytes(content)
    assert lehrling(*words, "--bundle-key", copied / "plant.pub").refused("was changed", code=1)


def test_a_policys_folder_needs_nothing_to_verify_signatures_with(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "lehrling.deploy.bundle", raising=False)
    monkeypatch.delitem(sys.modules, "lehrling.deploy.bundle_keys", raising=False)
    source = find_policies([f"left={copied / 'nut'}"], None, None)
    assert (source.policies, source.base) == ({"left": copied / "nut"}, None)


def test_a_bundle_whose_manifest_was_taken_away_is_no_policy_and_no_bundle(lehrling: Command, copied: Path) -> None:
    (copied / "cell7" / "manifest.json").unlink()
    words = ("serve", copied / "cell7", "--check", "--bundle-key", copied / "plant.pub")
    assert lehrling(*words).refused("manifest.json is missing", code=1)
    (copied / "cell7" / "manifest.sig").unlink()
    assert lehrling(*words).refused("Expected a bundle for --bundle-key")
    assert lehrling(*words[:3]).refused("policy.json")


def test_a_merged_policy_acts_from_its_bundle(copied: Path) -> None:
    source = find_policies([str(copied / "merged.tar")], copied / "plant.pub", None)
    assert source.base == str(source.policies["one"] / "model")
    found = load_policy(source.policies["one"], base=source.base).act([seen(1)])
    np.testing.assert_allclose(found, np.load(copied / "wanted.npy"), atol=1e-5)


def test_a_given_base_goes_before_a_bundles_and_two_bases_need_one(copied: Path) -> None:
    key, words = copied / "plant.pub", [str(copied / "cell7"), str(copied / "merged.tar")]
    with pytest.raises(InputError, match=r"policies of one base, got those of .*cell7/base and .*model; say --base"):
        find_policies(words, key, None)
    source = find_policies(words, key, "elsewhere")
    assert (source.base, list(source.policies)) == ("elsewhere", ["bolt", "nut", "one"])
    assert (source.embodiment, source.guard) == (copied / "cell7" / "embodiment.yaml", copied / "cell7" / "guard.yaml")


def test_an_onnx_export_is_refused_alone_and_left_out_beside_others(lehrling: Command, copied: Path) -> None:
    graph = Path(shutil.copytree(copied / "nut", copied / "graph"))
    (graph / "export.json").write_text('{"kind": "onnx"}')
    assert lehrling("serve", graph, "--check").refused("is an ONNX export", "merged export")
    for name, policies in (("both", ("graph", "nut")), ("alone", ("graph",))):
        parts = BundleParts({policy: copied / policy for policy in policies})
        make_bundle(parts, copied / name, copied / "plant.key")
    assert list(find_policies([str(copied / "both")], copied / "plant.pub", None).policies) == ["nut"]
    with pytest.raises(InputError, match="is an ONNX export"):
        find_policies([str(copied / "alone")], copied / "plant.pub", None)


def run_with(lehrling: Command, monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[Any, Any, list[str]]:
    """Run a bundle up to where the robot begins; return the robot's configuration, the plan, and what is served."""
    told: list[Any] = []

    def run_policy(config: Any, plan: Any, _say: object) -> dict[str, Any]:
        with PolicyClient(config.server) as client:
            told.extend((config, plan, list(client.hello["adapters"])))
        return {"cycles": [], "fault": ""}

    monkeypatch.setattr("lehrling.cli.policy_run.run_policy", run_policy)
    done = lehrling("run", *words, "--instruction", "go", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"cycles": [], "fault": ""}
    return told[0], told[1], told[2]


@pytest.mark.slow
def test_a_run_takes_robot_and_limits_from_the_bundle(
    lehrling: Command, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (copied / "cell7", "--bundle-key", copied / "plant.pub")
    config, plan, served = run_with(lehrling, monkeypatch, *words)
    assert config.robot().name == "arm6"
    assert config.limits(config.robot()).clamps_max == 7
    assert (plan.adapter, served) == ("bolt", ["bolt", "nut"])
    guard = copied / "own.yaml"
    guard.write_text("clamps_max: 9\n")
    own = ("--embodiment", "iiwa", "--guard", guard, "--adapter", "nut")
    config, plan, _ = run_with(lehrling, monkeypatch, *words, *own)
    assert (config.robot().name, config.limits(config.robot()).clamps_max, plan.adapter) == ("iiwa", 9, "nut")


def test_a_run_refuses_what_it_cannot_verify(lehrling: Command, copied: Path) -> None:
    more = ("--instruction", "go")
    key = ("--bundle-key", copied / "plant.pub")
    assert lehrling("run", copied / "cell7.tar", *more).refused("is a bundle", "--bundle-key")
    assert lehrling("run", copied / "cell7", "--bundle-key", copied / "other.pub", *more).refused("another key", code=1)
    assert lehrling("run", "ws://127.0.0.1:1", "--embodiment", "arm6", *key, *more).refused("Expected a bundle")
    assert lehrling("run", copied / "absent", "--embodiment", "arm6", *more).refused("Expected a policy folder")
    assert lehrling("run", copied / "merged.tar", *key, *more).refused("Expected --embodiment")
