"""A run learns, stops and goes on exactly, and leaves an artefact that belongs to its base."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.snapshots import take_snapshot
from lehrling.datasets.view import EpisodeFilter, View, build_view
from lehrling.training.artefact import read_description
from lehrling.training.config import TrainConfig
from lehrling.training.metrics import read_metrics
from lehrling.training.policy import load_policy
from lehrling.training.protocol import Observation
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer
from lehrling.training.trainer import learning_rate_factor, train
from lehrling.training.workers import worker_context


def losses(config: TrainConfig) -> list[float]:
    return [row["loss"] for row in read_metrics(config.output / "metrics.jsonl")]


def observation(seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for name in ("front", "wrist")}
    return Observation(images, rng.normal(size=7).astype(np.float32), "put the red part into the left pocket")


@pytest.fixture(scope="module")
def trained(run_of_twelve: Callable[[Path], TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Train twelve steps; not to be changed."""
    config = run_of_twelve(tmp_path_factory.mktemp("trained") / "run")
    train(config)
    return config


@pytest.fixture
def ended(trained: TrainConfig, tmp_path: Path) -> TrainConfig:
    """Copy the run of twelve steps, to be changed at will."""
    output = shutil.copytree(trained.output, tmp_path / "run")
    return trained.model_copy(update={"output": output})


def test_a_run_learns_and_reports_what_it_trained(config: TrainConfig) -> None:
    rates = {
        "lora": config.lora.model_copy(update={"rate": 3e-3}),
        "head": config.head.model_copy(update={"rate": 1e-2}),
    }
    result = train(config.model_copy(update={"steps": 60, "state_noise": 0.0, "precision": "fp32", **rates}))
    assert result.steps == 60
    assert 0 < result.trainable_parameters < result.total_parameters
    rows = read_metrics(config.output / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert result.first_loss == rows[0]["loss"]
    first, last = (float(np.mean([row["loss"] for row in part])) for part in (rows[:10], rows[-10:]))
    assert last < 0.7 * first
    assert list((config.output / "tensorboard").glob("events.*"))


def test_the_artefact_is_a_peft_directory_with_its_description(trained: TrainConfig, demonstrations: Path) -> None:
    policy = trained.output / "policy"
    names = {path.name for path in policy.iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "policy_head.safetensors", "policy.json", "README.md"}
    assert wanted | {"sbom.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    description = read_description(policy)
    episodes = Dataset.open(demonstrations).episodes()
    assert description.provenance["episodes"] == [{"id": e.id, "content_hash": e.record.content_hash} for e in episodes]
    assert description.provenance["contract_hash"] == episodes[0].record.contract_hash
    assert description.provenance["cost"]["steps"] == 12
    assert description.state_names[-1] == "joint_position.gripper"
    bill = json.loads((policy / "sbom.json").read_text())
    assert any(component["name"] == "torch" for component in bill["components"])


def test_a_loaded_policy_acts_in_physical_units_and_like_itself(trained: TrainConfig) -> None:
    policy = load_policy(trained.output / "policy")
    first = policy.act([observation(0), observation(1)])
    assert first.shape == (2, 8, 4)
    assert np.abs(first[..., :3]).max() < 2.0
    np.testing.assert_array_equal(first, load_policy(trained.output / "policy").act([observation(0), observation(1)]))
    np.testing.assert_allclose(first[:1], policy.act([observation(0)]), atol=1e-5)
    untrained = load_policy(trained.output / "initial").act([observation(0)])
    assert np.abs(untrained - first[:1]).max() > 1e-3


def test_cached_features_change_no_loss(config: TrainConfig, tmp_path: Path) -> None:
    cached = config.model_copy(update={"precision": "fp32", "steps": 4})
    live = cached.model_copy(update={"cache_features": False, "output": tmp_path / "live"})
    train(cached)
    train(live)
    np.testing.assert_allclose(losses(cached), losses(live), rtol=1e-6)


def start(config: TrainConfig, *, resume: bool = False) -> ForkServerProcess:
    process = worker_context().Process(target=train, args=(config,), kwargs={"resume": resume})
    process.start()
    return process


def wait_for_step(config: TrainConfig, step: int, process: ForkServerProcess) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(read_metrics(config.output / "metrics.jsonl")) >= step:
            return
        assert process.is_alive(), f"the run ended with {process.exitcode} before step {step}"
        time.sleep(0.005)
    pytest.fail(f"step {step} was not reached")


def test_a_run_killed_and_resumed_gives_the_same_losses_step_by_step(config: TrainConfig, tmp_path: Path) -> None:
    each = {"steps": 12, "checkpoint_every": 2, "precision": "bf16"}
    whole = config.model_copy(update=each | {"output": tmp_path / "whole"})
    broken = whole.model_copy(update={"output": tmp_path / "broken"})
    undisturbed = start(whole)
    for step in (3, 7):
        process = start(broken, resume=step > 3)
        wait_for_step(broken, step, process)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert step <= len(losses(broken)) < 12
    last = start(broken, resume=True)
    for process in (undisturbed, last):
        process.join(240)
        assert process.exitcode == 0
    assert losses(broken) == losses(whole)
    assert len(losses(whole)) == 12
    for name in ("policy_head.safetensors", "adapter_model.safetensors"):
        assert (broken.output / "policy" / name).read_bytes() == (whole.output / "policy" / name).read_bytes()


@pytest.mark.parametrize(
    ("decay", "every", "told"), [(0.01, 2, "at step 2: loss "), (1e10, 1, "at step 1: .* is not finite")]
)
def test_a_run_that_diverges_ends_and_saves_nothing_of_it(
    config: TrainConfig, decay: float, every: int, told: str
) -> None:
    rates = {part: getattr(config, part).model_copy(update={"rate": 1e30}) for part in ("lora", "head")}
    each = {"steps": 3, "checkpoint_every": every, "weight_decay": decay}
    with pytest.raises(InputError, match=rf"diverged {told}.* Lower lora\.rate and head\.rate"):
        train(config.model_copy(update=each | rates))
    assert np.isfinite(losses(config)).all()
    assert not list(config.output.glob("checkpoints/*"))
    assert not (config.output / "policy").exists()


def test_a_finished_output_is_never_trained_over(trained: TrainConfig) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        train(trained)


def test_resuming_a_finished_run_keeps_what_it_cost(trained: TrainConfig) -> None:
    before = json.loads((trained.output / "result.json").read_text(encoding="utf-8"))
    again = train(trained, resume=True)
    assert again.steps == before["steps"]
    assert before["seconds"] - 1 <= again.seconds < before["seconds"] + 60
    assert again.samples_per_s == pytest.approx(again.steps * trained.batch / again.seconds, rel=1e-3)
    assert read_description(trained.output / "policy").provenance["cost"]["seconds"] == again.seconds


def test_an_attempt_that_never_began_binds_no_other(config: TrainConfig) -> None:
    with pytest.raises(InputError):
        train(config.model_copy(update={"view": "absent"}))
    assert not (config.output / "config.json").exists()
    (config.output / "config.json").write_text(config.model_copy(update={"view": "absent"}).model_dump_json())
    train(config.model_copy(update={"steps": 1}), resume=True)
    assert json.loads((config.output / "config.json").read_text())["view"] == "train"


def test_a_run_resumed_beyond_its_steps_keeps_its_configuration(ended: TrainConfig) -> None:
    before = (ended.output / "config.json").read_bytes()
    assert train(ended.model_copy(update={"steps": 4}), resume=True).steps == 12
    assert (ended.output / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "line", [b'{"loss": 1.0}', b"\xff\xfe\x00", b"[" * 100_000, b"[1]", b'{"step": 9, "loss": null}']
)
def test_metrics_end_at_the_first_line_that_is_no_row(ended: TrainConfig, line: bytes) -> None:
    path = ended.output / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:8], line, *lines[8:]]) + b"\n")
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 9))
    train(ended.model_copy(update={"steps": 13}), resume=True)
    assert [row["step"] for row in read_metrics(path)] == [*range(1, 9), 13]


def test_resuming_a_run_of_another_configuration_is_refused(trained: TrainConfig) -> None:
    other = trained.model_copy(update={"lora": trained.lora.model_copy(update={"rank": 4, "dora": True}), "steps": 20})
    with pytest.raises(InputError, match="of another configuration"):
        train(other, resume=True)


def test_a_run_in_bf16_keeps_its_cached_features(config: TrainConfig) -> None:
    for precision in ("bf16", "fp32"):
        run = config.model_copy(update={"precision": precision, "steps": 1, "output": config.output / precision})
        train(run)
        other = run.model_copy(update={"cache_features": False, "steps": 2})
        if precision == "fp32":
            assert train(other, resume=True).steps == 2
            continue
        with pytest.raises(InputError, match="cache_features was True, but False came"):
            train(other, resume=True)


@pytest.mark.parametrize("name", ["view", "base", "precision"])
def test_resuming_on_another_view_base_or_precision_is_refused(ended: TrainConfig, name: str) -> None:
    path = ended.output / "checkpoints" / "step-00000012" / "state.json"
    state = json.loads(path.read_text())
    state["made_of"][name] = "0" * 64
    path.write_text(json.dumps(state))
    with pytest.raises(InputError, match=rf"of another {name} \(000000000000\) than came now"):
        train(ended.model_copy(update={"steps": 20}), resume=True)


def test_a_damaged_checkpoint_is_named(ended: TrainConfig) -> None:
    path = ended.output / "checkpoints" / "step-00000012" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamageError, match="step-00000012 cannot be read"):
        train(ended.model_copy(update={"steps": 20}), resume=True)


def test_an_adapter_on_the_wrong_base_is_refused(trained: TrainConfig, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tokenizer = make_tokenizer()
    tiny_backbone("qwen3_vl", tokenizer, Size(), seed=5).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="belongs to"):
        load_policy(trained.output / "policy", base=str(other))


def test_a_revision_of_what_is_no_hub_id_is_refused(config: TrainConfig) -> None:
    pinned = config.base.model_copy(update={"revision": "0" * 40})
    with pytest.raises(InputError, match=r"base\.revision for a hub id alone, got it for .*; leave it out"):
        train(config.model_copy(update={"base": pinned}))


def test_a_stale_view_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(config.dataset, tmp_path / "copy.zarr")
    with Dataset.open_for_writing(copy) as dataset:
        dataset.discard(dataset.episodes()[0].id, "test")
    with pytest.raises(InputError, match=r"stale|discarded|gone"):
        train(config.model_copy(update={"dataset": copy}))


def test_observations_of_another_shape_are_refused(trained: TrainConfig) -> None:
    policy = load_policy(trained.output / "policy")
    good = observation()
    with pytest.raises(InputError, match=r"camera 'wrist' as \(96, 96, 3\) uint8, got nothing"):
        policy.act([Observation({"front": good.images["front"]}, good.state, "go")])
    with pytest.raises(InputError, match="Expected 7 finite state values"):
        policy.act([Observation(good.images, good.state[:6], "go")])
    with pytest.raises(InputError, match=r"Expected 7 finite state values, got \[nan, "):
        policy.act([good, Observation(good.images, good.state * np.float32("nan"), "go")])
    with pytest.raises(InputError, match="Expected 7 finite state values"):
        policy.act([good, Observation(good.images, good.state[:6], "go")])
    with pytest.raises(InputError, match="at least one observation"):
        policy.act([])


def test_the_schedule_warms_up_and_decays_to_a_twentieth(config: TrainConfig) -> None:
    factors = [learning_rate_factor(step, config) for step in range(12)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors == sorted(factors[:2]) + sorted(factors[2:], reverse=True)
    assert learning_rate_factor(12, config) == pytest.approx(0.05)


def test_no_thread_count_leaks_out_of_a_run(config: TrainConfig) -> None:
    torch.set_num_threads(2)
    train(config.model_copy(update={"threads": None, "steps": 1}))
    assert torch.get_num_threads() == 2


def test_a_policy_names_the_snapshot_that_it_was_trained_on(
    config: TrainConfig, demonstrations: Path, tmp_path: Path
) -> None:
    root = tmp_path / "demo.zarr"
    shutil.copytree(demonstrations, root)
    snapshot = take_snapshot(Dataset.open(root), "v1", "seed < 3")
    built = View.open(Dataset.open(root), "train")
    spec = built.spec.model_copy(update={"episodes": EpisodeFilter(snapshot="v1")})
    build_view(Dataset.open(root), "pinned", spec)
    run = config.model_copy(update={"dataset": root, "view": "pinned", "steps": 1, "output": tmp_path / "run"})
    train(run)
    description = read_description(run.output / "policy")
    assert description.provenance["snapshot"] == {"name": "v1", "hash": snapshot.hash}
    assert description.view["episodes"]["snapshot_hash"] == snapshot.hash
    assert len(description.provenance["episodes"]) == 3
