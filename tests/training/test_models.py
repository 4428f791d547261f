"""A backbone is loaded by rule: listed, pinned, without foreign code, from safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lehrling.datasets.errors import InputError
from lehrling.training import models
from lehrling.training.tiny import tiny_backbone
from lehrling.training.tokenizer import make_tokenizer

PIN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = make_tokenizer()
    folder = tmp_path / "checkpoint"
    tiny_backbone("qwen3_vl", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_local_checkpoint_loads_with_its_hashes(checkpoint: Path) -> None:
    model, tokenizer, base = models.load_backbone(str(checkpoint))
    assert base.model_type == "qwen3_vl"
    assert len(base.hashes["model.safetensors"]) == 64
    assert tokenizer("task: red block")["input_ids"] == make_tokenizer()("task: red block")["input_ids"]
    assert not model.training


def test_the_weights_hash_changes_with_the_weights(checkpoint: Path) -> None:
    before = models.check(str(checkpoint)).weights_hash
    model, _, _ = models.load_backbone(str(checkpoint))
    with torch.no_grad():
        model.model.language_model.norm.weight.add_(1)
    model.save_pretrained(checkpoint)
    assert models.check(str(checkpoint)).weights_hash != before


def test_an_unlisted_architecture_is_refused(checkpoint: Path) -> None:
    edit(checkpoint, model_type="kosmos-9")
    with pytest.raises(InputError, match=r"allow-list .*qwen3_vl.*'kosmos-9'"):
        models.load_backbone(str(checkpoint))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, "text_config.auto_map"),
        ({"vision_config": {"deep": [{"trust_remote_code": True}]}}, r"vision_config.deep\[0\].trust_remote_code"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"custom_pipelines": {}}, "custom_pipelines"),
    ],
)
def test_keys_that_run_foreign_code_are_refused_at_any_depth(
    checkpoint: Path, changes: dict[str, object], path: str
) -> None:
    edit(checkpoint, **changes)
    with pytest.raises(InputError, match=path):
        models.load_backbone(str(checkpoint))


def test_a_tokenizer_with_remote_code_is_refused(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.T", None]}}))
    with pytest.raises(InputError, match="auto_map"):
        models.load_backbone(str(checkpoint))


def test_pickled_weights_are_never_loaded(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(InputError, match="never loaded"):
        models.load_backbone(str(checkpoint))


@pytest.mark.parametrize("source", ["https://example.org/model", "../../etc", "a/b/c", "Qwen", "", "file:///x"])
def test_what_is_no_directory_and_no_hub_id_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="Expected"):
        models.check(source)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", PIN[:-1], PIN.upper()])
def test_an_unpinned_hub_id_is_refused_before_any_download(
    revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_a, **_k: pytest.fail("downloaded"))
    with pytest.raises(InputError, match="40 hex digits"):
        models.check("Qwen/Qwen3-VL-2B-Instruct", revision)


def test_a_pinned_hub_id_goes_through_the_very_same_code(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def download(source: str, **options: object) -> str:
        asked.update(options, source=source)
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model, _, base = models.load_backbone("Qwen/Qwen3-VL-2B-Instruct", PIN)
    assert asked["revision"] == PIN
    assert "*.bin" not in str(asked["allow_patterns"])
    assert base.revision == PIN
    assert model.config.model_type == "qwen3_vl"


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        models.check(str(tmp_path))


def test_a_configuration_that_is_no_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        models.check(str(checkpoint))
