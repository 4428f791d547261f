"""A run learns, stops and goes on exactly, and leaves an artefact that belongs to its base."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError
from lehrling.training.artefact import read_description
from lehrling.training.config import TrainConfig
from lehrling.training.metrics import read_metrics
from lehrling.training.policy import load_policy
from lehrling.training.protocol import Observation
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer
from lehrling.training.trainer import learning_rate_factor, train


def losses(config: TrainConfig) -> list[float]:
    return [row["loss"] for row in read_metrics(config.output / "metrics.jsonl")]


def observation(seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for name in ("front", "wrist")}
    return Observation(images, rng.normal(size=7).astype(np.float32), "put the red part into the left pocket")


def test_a_run_learns_and_reports_what_it_trained(config: TrainConfig) -> None:
    faster = {"steps": 150, "head": config.head.model_copy(update={"rate": 5e-3}), "state_noise": 0.0}
    result = train(config.model_copy(update=faster))
    assert result.steps == 150
    assert 0 < result.trainable_parameters < result.total_parameters
    rows = read_metrics(config.output / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 151))
    assert result.first_loss == rows[0]["loss"]
    first, last = (float(np.mean([row["loss"] for row in part])) for part in (rows[:10], rows[-10:]))
    assert last < 0.7 * first
    assert list((config.output / "tensorboard").glob("events.*"))


def test_the_artefact_is_a_peft_directory_with_its_description(config: TrainConfig, demonstrations: Path) -> None:
    result = train(config)
    names = {path.name for path in result.policy.iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "policy_head.safetensors", "policy.json", "README.md"}
    assert wanted | {"sbom.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    description = read_description(result.policy)
    episodes = Dataset.open(demonstrations).episodes()
    assert description.provenance["episodes"] == [{"id": e.id, "content_hash": e.record.content_hash} for e in episodes]
    assert description.provenance["contract_hash"] == episodes[0].record.contract_hash
    assert description.provenance["cost"]["steps"] == 12
    assert description.state_names[-1] == "joint_position.gripper"
    bill = json.loads((result.policy / "sbom.json").read_text())
    assert any(component["name"] == "torch" for component in bill["components"])


def test_a_loaded_policy_acts_in_physical_units_and_like_itself(config: TrainConfig) -> None:
    result = train(config)
    policy = load_policy(result.policy)
    first = policy.act([observation(0), observation(1)])
    assert first.shape == (2, 8, 4)
    assert np.abs(first[..., :3]).max() < 2.0
    np.testing.assert_array_equal(first, load_policy(result.policy).act([observation(0), observation(1)]))
    np.testing.assert_allclose(first[:1], policy.act([observation(0)]), atol=1e-5)
    untrained = load_policy(result.initial).act([observation(0)])
    assert np.abs(untrained - first[:1]).max() > 1e-3


def test_cached_features_change_no_loss(config: TrainConfig, tmp_path: Path) -> None:
    cached = config.model_copy(update={"precision": "fp32", "steps": 4})
    live = cached.model_copy(update={"cache_features": False, "output": tmp_path / "live"})
    train(cached)
    train(live)
    np.testing.assert_allclose(losses(cached), losses(live), rtol=1e-6)


def start(config: TrainConfig, *, resume: bool = False) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from lehrling.training.config import TrainConfig; from lehrling.training.trainer import train; "
        "train(TrainConfig.model_validate_json(sys.argv[1]), resume=sys.argv[2] == 'resume')"
    )
    arguments = [sys.executable, "-c", code, config.model_dump_json(), "resume" if resume else "start"]
    return subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def wait_for_step(config: TrainConfig, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(read_metrics(config.output / "metrics.jsonl")) >= step:
            return
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(process.stderr.read().decode())
        time.sleep(0.005)
    pytest.fail(f"step {step} was not reached")


def test_a_run_killed_and_resumed_gives_the_same_losses_step_by_step(config: TrainConfig, tmp_path: Path) -> None:
    whole = config.model_copy(update={"steps": 30, "output": tmp_path / "whole"})
    process = start(whole)
    assert process.wait(timeout=240) == 0
    broken = whole.model_copy(update={"output": tmp_path / "broken"})
    for step in (6, 17):
        process = start(broken, resume=step > 6)
        wait_for_step(broken, step, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(losses(broken)) < 30
    assert start(broken, resume=True).wait(timeout=240) == 0
    assert losses(broken) == losses(whole)
    head = "policy/policy_head.safetensors"
    assert (broken.output / head).read_bytes() == (whole.output / head).read_bytes()


def test_a_finished_output_is_never_trained_over(config: TrainConfig) -> None:
    train(config)
    with pytest.raises(InputError, match="holds a run already"):
        train(config)


def test_resuming_a_run_of_another_configuration_is_refused(config: TrainConfig) -> None:
    train(config)
    other = config.model_copy(update={"lora": config.lora.model_copy(update={"rank": 4, "dora": True}), "steps": 20})
    with pytest.raises(InputError, match="of another configuration"):
        train(other, resume=True)


def test_a_damaged_checkpoint_is_named(config: TrainConfig) -> None:
    train(config)
    path = config.output / "checkpoints" / "step-00000012" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamageError, match="step-00000012 cannot be read"):
        train(config.model_copy(update={"steps": 20}), resume=True)


def test_an_adapter_on_the_wrong_base_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    result = train(config)
    other = tmp_path / "other"
    tokenizer = make_tokenizer()
    tiny_backbone("qwen3_vl", tokenizer, Size(), seed=5).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="belongs to"):
        load_policy(result.policy, base=str(other))


def test_a_stale_view_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(config.dataset, tmp_path / "copy.zarr")
    with Dataset.open_for_writing(copy) as dataset:
        dataset.discard(dataset.episodes()[0].id, "test")
    with pytest.raises(InputError, match=r"stale|discarded|gone"):
        train(config.model_copy(update={"dataset": copy}))


def test_observations_of_another_shape_are_refused(config: TrainConfig) -> None:
    policy = load_policy(train(config).policy)
    good = observation()
    with pytest.raises(InputError, match=r"camera 'wrist' as \(96, 96, 3\) uint8, got nothing"):
        policy.act([Observation({"front": good.images["front"]}, good.state, "go")])
    with pytest.raises(InputError, match="Expected 7 finite state values"):
        policy.act([Observation(good.images, good.state[:6], "go")])


def test_the_schedule_warms_up_and_decays_to_a_twentieth(config: TrainConfig) -> None:
    factors = [learning_rate_factor(step, config) for step in range(12)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors == sorted(factors[:2]) + sorted(factors[2:], reverse=True)
    assert learning_rate_factor(12, config) == pytest.approx(0.05)


def test_no_thread_count_leaks_out_of_a_run(config: TrainConfig) -> None:
    before = torch.get_num_threads()
    train(config.model_copy(update={"threads": None}))
    assert torch.get_num_threads() == before
