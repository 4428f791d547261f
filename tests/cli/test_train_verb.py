"""train: what it says, what it returns, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from cli_runs import Command, script

from lehrling.training import trainer
from lehrling.training.data import Batch
from lehrling.training.run import Run

HUB = "Qwen/Qwen3-VL-2B-Instruct"


def changed(made: Path, tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load((made / "train.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(content | {"output": str(tmp_path / "run")} | changes), encoding="utf-8")
    return path


def test_a_dry_run_prints_every_default_and_does_nothing(lehrling: Command, made: Path, tmp_path: Path) -> None:
    seen = lehrling("train", changed(made, tmp_path), "--dry-run", "--set", "lora.rank=2", "--set", "steps=7")
    assert (seen.data["lora"]["rank"], seen.data["steps"], seen.data["chunk"]) == (2, 7, 8)
    assert not (tmp_path / "run").exists()


def test_the_installed_script_prints_json_alone(made: Path, tmp_path: Path) -> None:
    seen = script("train", changed(made, tmp_path), "--dry-run", "--set", "base.path=builtin:base")
    assert (seen.code, seen.err, seen.data["base"]["path"]) == (0, "", "builtin:base")


def test_training_reports_what_it_did_and_resumes(lehrling: Command, made: Path, tmp_path: Path) -> None:
    config = changed(made, tmp_path, steps=2)
    facts = lehrling("train", config, "--json").data
    assert (facts["steps"], Path(facts["policy"])) == (2, tmp_path / "run" / "policy")
    assert 0 < facts["trainable_parameters"] < facts["total_parameters"] / 5
    assert min(facts["first_loss"], facts["last_loss"], facts["samples_per_s"]) > 0
    assert lehrling("train", config).refused(str(tmp_path / "run"), "holds a run already", "--resume")
    more = lehrling("train", config, "--resume", "--set", "steps=3", "--json").data
    assert (more["steps"], more["first_loss"]) == (3, facts["first_loss"])


def test_a_run_is_never_trained_over(lehrling: Command, made: Path) -> None:
    before = {p: p.read_bytes() for p in (made / "run" / "policy").iterdir()}
    assert lehrling("train", made / "train.yaml").refused("holds a run already", "choose another output")
    assert {p: p.read_bytes() for p in (made / "run" / "policy").iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 1}, ("'colour' is not a key", "steps")),
        ({"lora": {"rnk": 4}}, ("'lora.rnk' is not a key",)),
        ({"lora": 4}, ("lora", "dictionary", "4")),
        ({"steps": "many"}, ("steps", "integer", "'many'")),
        ({"steps": 0}, ("steps", "greater than or equal to 1", "0")),
        ({"view": "absent"}, ("views/absent", "`lehrling view`")),
        ({"view": "../elsewhere"}, ("letters, digits", "'../elsewhere'")),
        ({"dataset": "absent.zarr"}, ("dataset directory", "absent.zarr")),
        ({"base": {"path": HUB}}, (HUB, "40 hex digits")),
        ({"base": {"path": HUB, "revision": "main"}}, ("main", "40 hex digits")),
        ({"base": {"path": "https://example.com/model"}}, ("https://example.com/model", "local directory")),
        ({"base": {"path": "builtin:other"}}, ("other", "config.json")),
    ],
)
def test_an_unusable_configuration_is_refused(
    lehrling: Command, made: Path, tmp_path: Path, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    assert lehrling("train", changed(made, tmp_path, **changes), "--json").refused(*words)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps", ("KEY=VALUE", "--set lora.rank=8", "'steps'")),
        ("=3", ("KEY=VALUE", "'=3'")),
        ("steps.more=1", ("'steps'", "holds no keys")),
        ("lora.rank=x", ("lora.rank", "integer", "'x'")),
        ("lora.=3", ("'lora.' is not a key",)),
        ("colour=1", ("'colour' is not a key", "steps")),
    ],
)
def test_an_unusable_override_is_refused(lehrling: Command, made: Path, override: str, words: tuple[str, ...]) -> None:
    assert lehrling("train", made / "train.yaml", "--dry-run", "--set", override).refused(*words)


def test_an_override_that_is_not_yaml_is_refused(lehrling: Command, made: Path) -> None:
    assert lehrling("train", made / "train.yaml", "--dry-run", "--set", "steps=[").refused("--set", "steps=[", "YAML")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ("keys and values", "NoneType")),
        ("- 1", ("keys and values", "list")),
        ("steps: 3\nbatch: [", ("not YAML",)),
        (b"\xff\xfe\x00", ("not YAML", "utf-8")),
        ("[" * 5000, ("not YAML",)),
        (b" " * (2 << 20), ("larger than",)),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    lehrling: Command, tmp_path: Path, content: str | bytes, words: tuple[str, ...]
) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert lehrling("train", path).refused("train.yaml", *words)


def test_a_configuration_that_is_not_there_is_refused(lehrling: Command, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        assert lehrling("train", path).refused(str(path), "no such file")


def test_an_output_that_cannot_be_a_directory_is_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        assert lehrling("train", changed(made, tmp_path, output=str(output))).refused(str(output), "check the path")


def test_a_view_without_what_came_since_is_refused(lehrling: Command, made: Path, mixed: Path, tmp_path: Path) -> None:
    told = ("'train' is stale", "1 episodes came", "rebuild with `lehrling view")
    assert lehrling("train", changed(made, tmp_path, dataset=str(mixed))).refused(*told)


def test_a_view_with_a_purged_episode_is_refused(lehrling: Command, made: Path, cell: Path, tmp_path: Path) -> None:
    assert lehrling("edit", "purge", cell, "kitting-arm6-00000001", "--yes").code == 0
    config = changed(made, tmp_path, dataset=str(cell))
    assert lehrling("train", config).refused("views/train", "`lehrling view`")
    shutil.copytree(made / "cell.zarr" / "views" / "train", cell / "views" / "train")
    assert lehrling("train", config).refused("'kitting-arm6-00000001', which is purged", "build it again")


def test_an_interruption_ends_with_130_and_the_run_goes_on_later(
    lehrling: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.train_step

    def interrupted(run: Run, batch: Batch) -> float:
        if run.step == 2:
            raise KeyboardInterrupt
        return step(run, batch)

    config = changed(made, tmp_path, steps=3, checkpoint_every=1)
    monkeypatch.setattr(trainer, "train_step", interrupted)
    assert lehrling("train", config, "--json").refused("interrupted; what was finished before stays", code=130)
    monkeypatch.undo()
    assert lehrling("train", config, "--resume", "--json").data["steps"] == 3
    whole, resumed = (folder / "run" / "policy" / "adapter_model.safetensors" for folder in (made, tmp_path))
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("override", ["lora.rank=8", "head.hidden=32"])
def test_resuming_with_another_configuration_is_refused(
    lehrling: Command, made: Path, tmp_path: Path, override: str
) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    command = ("train", changed(made, tmp_path, steps=4), "--resume", "--set", override)
    assert lehrling(*command).refused("another configuration", "another output")


def test_a_head_of_another_size_than_the_base_brings_along_is_trained_from_its_beginning(
    lehrling: Command, made: Path, tmp_path: Path
) -> None:
    facts = lehrling(
        "train", changed(made, tmp_path, steps=1), "--set", "head.hidden=32", "--set", "head.warm_start=true", "--json"
    )
    assert (facts.code, facts.data["steps"]) == (0, 1)


def test_a_batch_beyond_the_view_is_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    told = ("batch of 4096 rows", "make `batch` smaller")
    assert lehrling("train", changed(made, tmp_path, batch=4096)).refused(*told)
