"""Exports act as the policy does, or are refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from small_policies import CHUNK, PX, save_policy, seen

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import sha256_file
from lehrling.training import export_merged, export_onnx
from lehrling.training.adapters import AdapterBank
from lehrling.training.artefact import Description, read_description, save_artefact
from lehrling.training.config import LoraSettings
from lehrling.training.export import agreed, export_adapter
from lehrling.training.export_graph import causal, placed
from lehrling.training.export_policy import load_onnx
from lehrling.training.families import FAMILIES
from lehrling.training.lora import attach
from lehrling.training.models import load_backbone
from lehrling.training.policy import load_policy, pixels_of
from lehrling.training.policy_model import PolicyModel
from lehrling.training.protocol import Observation
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer

STATE, ACTIONS = ["a", "b", "c"], ["x", "y"]
EXPORTS = {"merged": export_merged.export_merged, "adapter": export_adapter, "onnx": export_onnx.export_onnx}


@pytest.fixture(scope="module")
def policy(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a policy; not to be changed."""
    return save_policy(tmp_path_factory.mktemp("policies") / "nut", checkpoint, seed=3)


@pytest.fixture(scope="module")
def onnx(policy: Path) -> Path:
    """Export it to ONNX; not to be changed."""
    export_onnx.export_onnx(policy, policy.parent / "onnx")
    return policy.parent / "onnx"


def qwen2_5_vl(tokenizer: Any) -> Any:
    """Return a small Qwen2.5-VL, whose vision tower attends within windows."""
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 48, "intermediate_size": 96, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "window_size": 32, "out_hidden_size": 64, "fullatt_block_indexes": [1],
    }  # fmt: skip
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForImageTextToText.from_config(config)


def save_family(folder: Path, model_type: str, *, dora: bool = False, order: str = "instruction_first") -> Path:
    """Save a policy of two cameras on a small random backbone of a family; return its folder."""
    tokenizer = make_tokenizer()
    size = Size(patch=16, merge=2)
    made = qwen2_5_vl(tokenizer) if model_type == "qwen2_5_vl" else tiny_backbone(model_type, tokenizer, size)
    made.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "base" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]})
    )
    backbone, tokenizer, base = load_backbone(str(folder / "base"))
    description = Description(
        base={
            "source": str(folder / "base"), "revision": None, "model_type": model_type,
            "weights_sha256": base.weights_hash, "files": {},
        },
        view={}, contract={}, cameras=["front", "wrist"], image_px=64, rate_hz=10.0, chunk=3,
        prompt={"order": order, "instruction_tokens_max": 16},  # type: ignore[typeddict-item]
        state_names=STATE, action_names=ACTIONS,
        state={"offset": [0.5, -1.0, 2.0], "scale": [0.5, 2.0, 1.0]},
        action={"offset": [0.25, -0.5], "scale": [0.1, 3.0]},
        head={"kind": "regression", "hidden": 16},
        relative=[{"kind": "chunk_relative", "action": [1], "state": [2]}],
    )  # fmt: skip
    pixels = pixels_of(base, backbone.config)
    torch.manual_seed(1)
    model = PolicyModel(
        backbone, tokenizer, description.make_prompt(pixels.tokens(64)), 3, 2, pixels=pixels, head_hidden=16
    )
    model.backbone = attach(backbone, LoraSettings(rank=2, alpha=8, dora=dora))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    save_artefact(folder / "policy", model, description)
    return folder / "policy"


def shown(number: int) -> Observation:
    """Return an observation of two cameras."""
    draw = np.random.default_rng(number)
    images = {name: draw.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in ("front", "wrist")}
    words = ("pick", "put the red part into the pocket", "open")[number % 3]
    return Observation(images, draw.normal(size=3).astype(np.float32) * 2, words)


def acted(policy: Any) -> NDArray[np.float32]:
    return np.concatenate([policy.act([shown(number)]) for number in range(4)])


def test_a_merged_policy_acts_as_before_and_needs_nothing_of_the_old_base(policy: Path, tmp_path: Path) -> None:
    facts = export_merged.export_merged(policy, tmp_path / "merged")
    assert facts["agreement"]["max_difference"] < 1e-4
    assert facts["agreement"]["samples"] == 8
    before = load_policy(policy).act([seen(1), seen(2)])
    after = load_policy(tmp_path / "merged").act([seen(1), seen(2)])
    np.testing.assert_allclose(after, before, atol=1e-5)
    unadapted = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert [tensor.abs().max() == 0 for name, tensor in unadapted.items() if "lora_B" in name] == [True]
    assert json.loads((tmp_path / "merged" / "export.json").read_text()) == facts


def test_the_merged_backbone_is_a_plain_folder_of_transformers(policy: Path, tmp_path: Path) -> None:
    export_merged.export_merged(policy, tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged" / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "adapter_config.json" not in names
    merged, _, base = load_backbone(str(tmp_path / "merged" / "model"))
    original, _, _ = load_backbone(read_description(policy).base["source"])
    differing = {
        name for (name, new), (_, old) in zip(merged.named_parameters(), original.named_parameters(), strict=True)
        if not torch.equal(new, old)
    }  # fmt: skip
    assert all("language_model" in name and "proj" in name for name in differing)
    assert len(differing) == 2 * 7
    description = read_description(tmp_path / "merged")
    assert description.base["weights_sha256"] == base.weights_hash
    assert description.provenance["merged_from"]["base"]["weights_sha256"] != base.weights_hash


def test_a_merged_policy_is_served_by_name_and_may_be_moved(policy: Path, tmp_path: Path) -> None:
    export_merged.export_merged(policy, tmp_path / "merged")
    (tmp_path / "merged").rename(tmp_path / "moved")
    bank = AdapterBank({"nut": tmp_path / "moved"}, base=str(tmp_path / "moved" / "model"))
    np.testing.assert_allclose(bank.act("nut", [seen(1)]), load_policy(policy).act([seen(1)]), atol=1e-5)


@pytest.mark.parametrize("umask", [0o022, 0o027])
@pytest.mark.parametrize("kind", ["merged", "adapter", pytest.param("onnx", marks=pytest.mark.slow)])
def test_all_files_of_an_export_are_as_readable_as_any_new_file(
    policy: Path, tmp_path: Path, kind: str, umask: int
) -> None:
    before = os.umask(umask)
    try:
        EXPORTS[kind](policy, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o666 & ~umask}, modes
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


@pytest.mark.slow
def test_an_export_that_acts_otherwise_is_refused_and_leaves_nothing(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="merged policy differs from the policy by"):
        export_merged.export_merged(policy, tmp_path / "merged", tolerance=-1.0)
    with pytest.raises(DamageError, match="ONNX graph differs"):
        export_onnx.export_onnx(policy, tmp_path / "onnx", tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []
    nan = torch.full((1, 2), float("nan"))
    with pytest.raises(DamageError, match="nan"):
        agreed(nan, nan, 1.0, 0, "graph")


def test_the_adapter_alone_goes_without_optimizer_and_checkpoints(policy: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(policy, trained)
    (trained / "checkpoints").mkdir()
    (trained / "checkpoints" / "tensors.safetensors").write_bytes(b"optimizer")
    (trained / "log.jsonl").write_text("{}")
    facts = export_adapter(trained, tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "export.json", "policy.json",
        "policy_head.safetensors", "sbom.json",
    }  # fmt: skip
    assert facts["files"]["policy.json"] == sha256_file(policy / "policy.json")
    assert read_description(tmp_path / "adapter") == read_description(policy)
    np.testing.assert_array_equal(load_policy(tmp_path / "adapter").act([seen(1)]), load_policy(policy).act([seen(1)]))


def test_an_onnx_export_acts_as_the_policy_does(policy: Path, onnx: Path) -> None:
    facts = json.loads((onnx / "export.json").read_text())
    assert facts["agreement"]["max_difference"] < 1e-5
    assert facts["inputs"]["images"] == {"shape": [1, 1, PX, PX, 3], "dtype": "uint8"}
    assert facts["outputs"]["actions"] == {"shape": [1, CHUNK, 1], "dtype": "float32"}
    assert facts["inputs"]["input_ids"] == facts["inputs"]["attention_mask"]
    loaded = load_onnx(onnx)
    assert loaded.spec == load_policy(policy).spec
    np.testing.assert_allclose(loaded.act([seen(1), seen(2)]), load_policy(policy).act([seen(1), seen(2)]), atol=1e-5)


def test_the_onnx_file_is_all_that_onnxruntime_needs(policy: Path, onnx: Path) -> None:
    import onnxruntime  # type: ignore[import-untyped]

    from lehrling.training.export import open_trained
    from lehrling.training.export_prompt import padded_prompt

    session = onnxruntime.InferenceSession(str(onnx / "policy.onnx"), providers=["CPUExecutionProvider"])
    facts = json.loads((onnx / "export.json").read_text())
    assert {i.name: i.shape for i in session.get_inputs()} == {n: i["shape"] for n, i in facts["inputs"].items()}
    observation = seen(5)
    ids, mask = padded_prompt(open_trained(policy).model, observation.instruction)
    given = {
        "images": observation.images["front"][None, None], "input_ids": ids.numpy(), "attention_mask": mask.numpy(),
        "state": observation.state[None],
    }  # fmt: skip
    chunk = session.run(["actions"], given)[0]
    np.testing.assert_allclose(chunk, load_policy(policy).act([observation]), atol=1e-5)


@pytest.mark.slow
def test_weights_too_large_for_a_protobuf_lie_beside_the_graph(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "BESIDE_BYTES", 0)
    facts = export_onnx.export_onnx(policy, tmp_path / "onnx")
    assert "policy.onnx.data" in facts["files"]
    assert (tmp_path / "onnx" / "policy.onnx").stat().st_size < (tmp_path / "onnx" / "policy.onnx.data").stat().st_size
    (tmp_path / "onnx").rename(tmp_path / "moved")
    wanted = load_policy(policy).act([seen(4)])
    np.testing.assert_allclose(load_onnx(tmp_path / "moved").act([seen(4)]), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=[pytest.mark.slow] * (name != "qwen3_vl")) for name in sorted(FAMILIES)]
)
def test_every_family_is_exported_whole_with_its_pixels_and_normalisers(tmp_path: Path, model_type: str) -> None:
    policy = save_family(
        tmp_path, model_type, order="cameras_first" if model_type == "internvl" else "instruction_first"
    )
    wanted = acted(load_policy(policy))
    export_onnx.export_onnx(policy, tmp_path / "onnx")
    np.testing.assert_allclose(acted(load_onnx(tmp_path / "onnx")), wanted, atol=1e-4)
    export_merged.export_merged(policy, tmp_path / "merged")
    shutil.rmtree(tmp_path / "base")
    np.testing.assert_allclose(acted(load_policy(tmp_path / "merged")), wanted, atol=1e-4)


def test_dora_is_merged_too(tmp_path: Path) -> None:
    policy = save_family(tmp_path, "qwen3_vl", dora=True)
    facts = export_merged.export_merged(policy, tmp_path / "merged")
    assert facts["agreement"]["max_difference"] < 1e-4


def test_padding_is_not_looked_at_and_never_nan() -> None:
    mask = causal(torch.tensor([[0, 0, 1, 1]]))[0, 0]
    assert mask.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
    visual = torch.tensor([[False, True, False, True]])
    assert placed(visual, torch.tensor([[1.0], [2.0]]))[0, [1, 3], 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["merged", "adapter", "onnx"])
def test_what_cannot_be_exported_is_refused_before_anything_is_written(policy: Path, tmp_path: Path, kind: str) -> None:
    export = EXPORTS[kind]
    with pytest.raises(InputError, match=r"policy\.json"):
        export(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="not there yet"):
        export(policy, tmp_path / "there")
    broken = tmp_path / "broken"
    shutil.copytree(policy, broken)
    (broken / "policy_head.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        export(broken, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "there"]


def test_what_is_no_onnx_export_is_refused(policy: Path, onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected an ONNX export"):
        load_onnx(policy)
    broken = tmp_path / "broken"
    shutil.copytree(onnx, broken)
    (broken / "policy.onnx").write_bytes(b"none")
    with pytest.raises(InputError, match=r"cannot be loaded \(policy\.onnx is not the one in export\.json\)"):
        load_onnx(broken)
    facts = json.loads((broken / "export.json").read_text())
    facts["files"]["policy.onnx"] = sha256_file(broken / "policy.onnx")
    (broken / "export.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"cannot be loaded \(.*; export it again"):
        load_onnx(broken)
    with pytest.raises(InputError, match="at most 48 tokens"):
        load_onnx(onnx).act([Observation(seen(1).images, seen(1).state, "pick " * 60)])
    with pytest.raises(InputError, match="remove the token"):
        load_onnx(onnx).act([Observation(seen(1).images, seen(1).state, "pick <|image_pad|>")])


@pytest.mark.parametrize("name", ["policy.json", "tokenizer/tokenizer.json"])
def test_an_onnx_export_whose_files_changed_is_refused(onnx: Path, tmp_path: Path, name: str) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(onnx, changed)
    (changed / name).write_text((changed / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"{name} is not the one in export"):
        load_onnx(changed)
    (changed / name).unlink()
    with pytest.raises(InputError, match=r"policy\.json|is not the one in export"):
        load_onnx(changed)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(InputError, match=r"needs onnx; install lehrling-training\[export\]"):
        export_onnx.needs_packages()
