"""A backbone is loaded by rule: listed, pinned, without foreign code, from safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lehrling.datasets.errors import InputError
from lehrling.training import models
from lehrling.training.artefact import describe_base
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
        ({"attn_implementation": "someone/kernel"}, "'attn_implementation'"),
        ({"text_config": {"attn_implementation": "someone/kernel"}}, "text_config.attn_implementation"),
        ({"experts_implementation": "someone/kernel"}, "'experts_implementation'"),
        (
            {"vision_config": {"_experts_implementation_internal": "x"}},
            "vision_config._experts_implementation_internal",
        ),
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


def test_a_directory_named_like_a_hub_id_has_no_revision(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    (checkpoint.parent / "Qwen").mkdir()
    checkpoint.rename(checkpoint.parent / "Qwen" / "small")
    base = models.check("Qwen/small", PIN)
    assert base.revision is None
    assert describe_base(base)["revision"] is None
    assert models.check("builtin:base", PIN).revision is None


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        models.check(str(tmp_path))


def test_a_configuration_that_is_no_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        models.check(str(checkpoint))


def test_a_configuration_that_names_other_weights_is_refused(checkpoint: Path) -> None:
    edit(checkpoint, transformers_weights="adapter_model.bin")
    with pytest.raises(InputError, match="transformers_weights"):
        models.load_backbone(str(checkpoint))


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../elsewhere.safetensors", 5, None])
def test_an_index_that_leads_elsewhere_is_refused(checkpoint: Path, shard: object) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"lm_head.weight": shard} if shard else None}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names of \*\.safetensors beside .*index\.json, got "):
        models.load_backbone(str(checkpoint))


def test_a_base_that_is_an_adapter_is_refused_before_it_names_a_base_of_its_own(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-2B-Instruct"}')
    with pytest.raises(InputError, match=r"base without adapters, got .*adapter_config\.json"):
        models.load_backbone(str(checkpoint))


def test_weights_that_lack_a_tensor_are_refused_instead_of_left_at_random(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.language_model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack model\.language_model\.norm\.weight .* left at random"):
        models.load_backbone(str(checkpoint))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", lambda path: path.write_bytes(b"{")),
        ("tokenizer.json", cut),
        ("tokenizer.json", lambda path: path.write_bytes(b"[" * 100_000)),
        ("tokenizer.json", Path.unlink),
    ],
)
def test_broken_files_are_refused_in_one_sentence(checkpoint: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(checkpoint / name)
    with pytest.raises(InputError, match=r"qwen3_vl checkpoint at .* cannot be loaded") as caught:
        models.load_backbone(str(checkpoint))
    assert str(checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"image_mean": "grey", "image_std": [1, 1, 1]}', "image_mean: Input should be a valid tuple"),
        ('{"image_mean": [0, 0], "image_std": [1, 1, 1]}', "image_mean.2: Field required"),
        ('{"image_mean": [0, 0, 0], "image_std": [0, 1, 1]}', "image_std.0: Input should be greater than 0"),
        ("[1]", "Expected an object"),
    ],
)
def test_a_malformed_normalisation_is_refused(checkpoint: Path, content: str, told: str) -> None:
    base = models.check(str(checkpoint))
    (checkpoint / "preprocessor_config.json").write_text(content)
    with pytest.raises(InputError, match=told):
        models.pixel_statistics(base)


def test_a_normalisation_is_read_and_its_absence_is_none(checkpoint: Path) -> None:
    base = models.check(str(checkpoint))
    assert models.pixel_statistics(base) is None
    (checkpoint / "preprocessor_config.json").write_text('{"image_mean": [0, 0.5, 1], "image_std": [1, 2, 3], "x": 1}')
    assert models.pixel_statistics(base) == ((0, 0.5, 1), (1, 2, 3))


def test_a_normalisation_is_read_where_transformers_5_writes_it(checkpoint: Path) -> None:
    base = models.check(str(checkpoint))
    nested = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}, "processor_class": "x"}
    (checkpoint / "processor_config.json").write_text(json.dumps(nested))
    assert models.pixel_statistics(base) == ((0.1, 0.2, 0.3), (1, 2, 3))
    (checkpoint / "preprocessor_config.json").write_text('{"image_mean": [0, 0.5, 1], "image_std": [1, 1, 1]}')
    assert models.pixel_statistics(base) == ((0, 0.5, 1), (1, 1, 1))
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "processor_config.json").write_text(
        '{"image_processor": {"image_mean": [1], "image_std": [1, 1, 1]}}'
    )
    with pytest.raises(InputError, match=r"processor_config\.json: image_mean"):
        models.pixel_statistics(base)
    (checkpoint / "processor_config.json").write_text('{"image_processor": null, "image_seq_length": 256}')
    assert models.pixel_statistics(base) is None
    assert "processor_config.json" in models.PATTERNS


def test_without_fetching_a_hub_id_must_be_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("httpx.Client.send", lambda *_a, **_k: pytest.fail("reached for the network"))
    with pytest.raises(InputError, match=f"bring it with `lehrling models check some/model --revision {PIN}`"):
        models.load_backbone("some/model", PIN, fetch=False)
