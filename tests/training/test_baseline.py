"""LeRobot's policies on our views: the same weights as LeRobot's training, reloaded by LeRobot, run by our evaluation."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import lerobot_peer
import numpy as np
import pytest
import torch

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.view import View
from lehrling.training.baseline_facts import read_facts, write_facts
from lehrling.training.evaluate import EvaluationPlan, evaluate
from lehrling.training.policies import demonstrations_of, open_policy
from lehrling.training.protocol import Observation

pytest.importorskip("lerobot")

from lehrling.training.baseline import BaselineResult, train_baseline
from lehrling.training.baseline_plan import BaselinePlan, pipeline_of
from lehrling.training.baseline_policy import load_baseline
from lehrling.training.lerobot_data import LerobotViewDataset

TINY: dict[str, object] = {
    "pretrained_backbone_weights": None,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 64,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "chunk_size": 8,
    "n_action_steps": 8,
}


@pytest.fixture(scope="module")
def plan(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> BaselinePlan:
    output = tmp_path_factory.mktemp("baseline") / "run"
    return BaselinePlan(
        demonstrations, "train", output, steps=4, batch=2, seed=7, settings=TINY, device="cpu", save_every=2
    )


@pytest.fixture(scope="module")
def result(plan: BaselinePlan) -> BaselineResult:
    return train_baseline(plan)


def observation(plan: BaselinePlan, row: int) -> Observation:
    view = View.open(Dataset.open(plan.dataset), plan.view)
    images = {camera: view.images(camera)[row] for camera in view.spec.cameras}
    return Observation(images, view.state[row], view.episodes[0].instruction)


def test_four_steps_of_act_give_lerobots_checkpoints(plan: BaselinePlan, result: BaselineResult) -> None:
    view = View.open(Dataset.open(plan.dataset), plan.view)
    assert (result.frames, result.episodes, result.steps, result.left_out) == (len(view), 4, 4, {})
    assert np.isfinite([result.first_loss, result.last_loss]).all()
    assert result.policy == plan.output / "checkpoints/000004/pretrained_model"
    assert (plan.output / "checkpoints/last").resolve() == plan.output / "checkpoints/000004"
    for name in ("config.json", "model.safetensors", "train_config.json", "policy_preprocessor.json", "lehrling.json"):
        assert (plan.output / "checkpoints/000002/pretrained_model" / name).is_file()
    assert (plan.output / "checkpoints/000004/training_state/optimizer_state.safetensors").is_file()
    rows = [json.loads(line) for line in (plan.output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["loss"] == result.first_loss


def test_lerobot_reloads_the_policy_and_ours_gives_its_actions(plan: BaselinePlan, result: BaselineResult) -> None:
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    theirs = ACTPolicy.from_pretrained(result.policy)
    before, after = make_pre_post_processors(theirs.config, str(result.policy))
    data = LerobotViewDataset.open(Dataset.open(plan.dataset), plan.view)
    ours = load_baseline(plan.output)
    for row in (0, len(data) - 1):
        sample = data[row]
        images = {key: sample[key].float() / 255 for key in data.meta.camera_keys}  # type: ignore[union-attr]
        seen = before({**images, "observation.state": sample["observation.state"], "task": sample["task"]})
        with torch.inference_mode():
            wanted = after(theirs.predict_action_chunk(seen)).numpy()
        np.testing.assert_allclose(ours.act([observation(plan, row)]), wanted, rtol=1e-5, atol=1e-6)
    both = ours.act([observation(plan, 0), observation(plan, 5)])
    assert both.shape == (2, 8, 4)
    np.testing.assert_allclose(both[1:], ours.act([observation(plan, 5)]), rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_same_weights_and_another_gives_others(
    plan: BaselinePlan, result: BaselineResult, tmp_path: Path
) -> None:
    same = train_baseline(dataclasses.replace(plan, output=tmp_path / "same"))
    other = train_baseline(dataclasses.replace(plan, output=tmp_path / "other", seed=8, steps=1))
    first = (result.policy / "model.safetensors").read_bytes()
    assert (same.policy / "model.safetensors").read_bytes() == first
    assert (other.first_loss, same.first_loss) != (result.first_loss, result.first_loss)


def test_the_weights_are_those_that_lerobots_own_training_gives_on_an_export(
    plan: BaselinePlan, result: BaselineResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.scripts.lerobot_train import train

    dataset = Dataset.open(plan.dataset)
    view = View.open(dataset, plan.view)
    export_lerobot(dataset, tmp_path / "out", ExportOptions(view.spec, images=True))
    lerobot_peer.load(tmp_path / "out", tmp_path / "cache")
    config = pipeline_of(plan, view)
    config.dataset.root, config.output_dir = str(tmp_path / "out"), tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["lerobot-train"])
    train(config)
    theirs = tmp_path / "run/checkpoints/000004/pretrained_model/model.safetensors"
    assert theirs.read_bytes() == (result.policy / "model.safetensors").read_bytes()


def test_the_closed_loop_runs_on_the_seeds_asked_for_and_refuses_those_of_the_demonstrations(
    plan: BaselinePlan, result: BaselineResult
) -> None:
    assert demonstrations_of(result.policy) == [e.id for e in read_facts(result.policy).episodes]
    assert open_policy(plan.output).spec.chunk == 8
    wanted = EvaluationPlan(plan.output, None, "kitting", "arm6", (500_000,), execute=8)
    report = evaluate(wanted)
    assert [(row.actor, row.seed) for row in report.rollouts] == [("tuned", 500_000), ("expert", 500_000)]
    assert report.to_json() == evaluate(wanted).to_json()
    with pytest.raises(InputError, match=r"never used for demonstrations, but 1 were, such as 2"):
        evaluate(dataclasses.replace(wanted, seeds=(2,)))


@pytest.mark.parametrize(
    ("policy", "settings", "told"),
    [
        ("act", {"dim_modell": 3}, "`dim_modell` are not valid for ACTConfig"),
        ("act", {"dim_model": "wide"}, "Couldn't parse 'wide' into an int"),
        ("act", {"push_to_hub": True}, "got push_to_hub; nothing is uploaded"),
        ("act", {"n_action_steps": 9, "chunk_size": 8}, "upper bound for the number of action steps"),
        ("nothing", {}, "policies that it has are act, diffusion"),
    ],
)
def test_a_setting_or_policy_that_lerobot_does_not_take_is_refused(
    plan: BaselinePlan, tmp_path: Path, policy: str, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        train_baseline(dataclasses.replace(plan, output=tmp_path / "run", policy=policy, settings=settings))
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_here_is_refused(plan: BaselinePlan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a device that is here, got 'mps'"):
        train_baseline(dataclasses.replace(plan, output=tmp_path / "run", device="mps"))


def test_a_folder_that_holds_something_is_refused(plan: BaselinePlan, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something already"):
        train_baseline(dataclasses.replace(plan, output=tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model.safetensors", None, "model.safetensors .* is missing"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{broken", "cannot be loaded as a policy of LeRobot's"),
        ("config.json", b'{"type": "nothing"}', "cannot be loaded as a policy of LeRobot's"),
        ("policy_preprocessor.json", b'{"steps": [{"class": "os.system"}]}', "not one of LeRobot's; it is refused"),
        ("policy_preprocessor.json", b"[", "is no pipeline"),
        ("lehrling.json", b'{"lehrling_baseline": 2}', "lehrling_baseline"),
    ],
)
def test_a_broken_baseline_is_refused_in_a_sentence(
    result: BaselineResult, tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    folder = Path(shutil.copytree(result.policy, tmp_path / "policy"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        load_baseline(folder)


def test_a_baseline_of_differences_between_rows_is_refused_in_the_closed_loop(
    result: BaselineResult, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(result.policy, tmp_path / "policy"))
    write_facts(folder, read_facts(folder).model_copy(update={"differences": ("command",)}))
    with pytest.raises(InputError, match="'command' as differences between rows, which the chunk runtime cannot"):
        open_policy(folder)
