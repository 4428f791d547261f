"""policy.json is read as what it says or refused; slots, head and adapters come from this directory alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lehrling.datasets.errors import InputError
from lehrling.training.artefact import DESCRIPTION, Description, read_description, save_artefact
from lehrling.training.config import LoraSettings
from lehrling.training.images import PixelSpec
from lehrling.training.lora import attach
from lehrling.training.models import HASHED, check, load_backbone
from lehrling.training.policies import demonstrations_of
from lehrling.training.policy import load_policy
from lehrling.training.policy_model import PolicyModel, pixel_spec

Change = Callable[[dict[str, Any]], object]


def describe(base: Path, weights: str) -> Description:
    return Description(
        base={"source": str(base), "revision": None, "model_type": "qwen3_vl", "weights_sha256": weights, "files": {}},
        view={},
        contract={},
        cameras=["front"],
        image_px=96,
        rate_hz=10.0,
        chunk=4,
        prompt={"order": "instruction_first", "instruction_tokens_max": 48},
        state_names=["a", "b"],
        action_names=["x"],
        state={"offset": [0.0, 0.0], "scale": [1.0, 1.0]},
        action={"offset": [0.0], "scale": [1.0]},
        head={"kind": "regression", "hidden": 16},
        relative=[{"kind": "chunk_relative", "action": [0], "state": [1]}],
    )


@pytest.fixture(scope="module")
def saved(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Save a policy; return its files."""
    backbone, tokenizer, base = load_backbone(str(checkpoint))
    description = describe(checkpoint, base.weights_hash)
    pixels: PixelSpec = pixel_spec(backbone.config)
    prompt = description.make_prompt(pixels.tokens(96))
    model = PolicyModel(backbone, tokenizer, prompt, 2, 1, pixels=pixels, head_hidden=16)
    model.backbone = attach(backbone, LoraSettings(rank=2))
    folder = tmp_path_factory.mktemp("saved")
    save_artefact(folder, model, description)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def policy(saved: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay the policy out where nothing can reach a hub."""
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("httpx.Client.send", lambda *_a, **_k: pytest.fail("a policy reached for the network"))
    return tmp_path


def edit(path: Path, change: Change) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_policy_comes_back_as_it_was_described(policy: Path) -> None:
    assert load_policy(policy).spec.state_names == ("a", "b")
    description = read_description(policy)
    assert description == describe(Path(description.base["source"]), description.base["weights_sha256"])
    assert description.codec.parts[0].state == (1,)


def test_the_adapter_names_its_base_as_it_was_given(policy: Path) -> None:
    config = json.loads((policy / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == read_description(policy).base["source"]
    assert config["peft_type"] == "LORA"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(schema=2), "Expected schema 1 in .*, got 2; use the version that wrote it"),
        (lambda d: d.pop("schema"), "Expected schema 1 in .*, got None"),
        (lambda d: (d.pop("chunk"), d.pop("view")), "it lacks view, chunk"),
        (lambda d: d.update(chunk=10**9), "chunk: Input should be less than or equal to 256, got 1000000000"),
        (lambda d: d.update(image_px="96 px"), "image_px: Input should be a valid integer"),
        (lambda d: d.update(rate_hz=float("inf")), "rate_hz: Input should be less than or equal to 1000"),
        (lambda d: d["state"].update(scale=[1.0, 0.0]), "state.scale.1: Input should be greater than 0"),
        (lambda d: d["action"].update(offset=[float("nan")]), "action.offset.0: Input should be a finite number"),
        (lambda d: d["action"].pop("offset"), "action.offset: Field required"),
        (lambda d: d.update(action_names=["x", "y"]), "action has 2 names, but a normaliser of another length"),
        (lambda d: d["relative"][0].update(state=[2]), "relative names state columns beyond its 2"),
        (lambda d: d["relative"][0].update(state=[-1]), "relative names state columns beyond its 2"),
        (lambda d: d["relative"][0].update(state=[0, 1]), "as many reference columns as action columns"),
        (lambda d: d.update(head=5), "head: Input should be a valid dictionary"),
        (lambda d: d["head"].update(kind="magic"), "head.kind: Input should be 'regression'"),
        (lambda d: d.update(base=[]), "base: Input should be a valid dictionary"),
    ],
)
def test_a_description_that_is_malformed_is_refused_naming_the_key(policy: Path, change: Change, reason: str) -> None:
    edit(policy / DESCRIPTION, change)
    with pytest.raises(InputError, match=reason) as caught:
        read_description(policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("episodes", [5, ["one"], [{"name": "one"}], [None]])
def test_a_policy_that_does_not_say_what_it_was_trained_on_is_refused_where_that_matters(
    policy: Path, episodes: object
) -> None:
    edit(policy / DESCRIPTION, lambda d: d["provenance"].update(episodes=episodes))
    with pytest.raises(InputError, match=r"expected a list of objects with an id under provenance\.episodes"):
        demonstrations_of(policy)
    edit(policy / DESCRIPTION, lambda d: d["provenance"].update(episodes=[{"id": "one"}]))
    assert demonstrations_of(policy) == ["one"]


@pytest.mark.parametrize("name", HASHED)
def test_a_base_of_the_same_weights_but_other_files_is_refused(policy: Path, tmp_path: Path, name: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(read_description(policy).base["source"], base)
    for absent in HASHED:
        if not (base / absent).exists():
            (base / absent).write_text("{}", encoding="utf-8")
    hashes = check(str(base)).hashes
    assert set(HASHED) < set(hashes)
    load_policy(policy, base=str(base))
    edit(policy / DESCRIPTION, lambda d: d["base"].update(files=hashes))
    load_policy(policy, base=str(base))
    (base / name).write_text((base / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"with another {name} \({hashes[name][:12]}\) than lies in {base} "):
        load_policy(policy, base=str(base))


def test_a_base_on_the_hub_is_looked_for_on_this_machine_alone(policy: Path) -> None:
    hub = {"source": "Qwen/Qwen3-VL-2B-Instruct", "revision": "0" * 40}
    edit(policy / DESCRIPTION, lambda d: d["base"].update(hub))
    with pytest.raises(InputError, match="in this machine's cache, because nothing is downloaded to run a policy"):
        load_policy(policy)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "policy_head.safetensors",
            "head in .*policy_head.safetensors does not fit this model: blocks.0.inner.0.bias: ",
        ),
        ("adapter_model.safetensors", "adapter_model.safetensors does not fit this base and adapter_config.json: "),
    ],
)
def test_tensors_of_another_shape_are_refused(policy: Path, name: str, reason: str) -> None:
    tensors = load_file(policy / name)
    changed = {key: torch.cat([value, value]) for key, value in tensors.items()}
    save_file(
        {key: value for key, value in changed.items() if "slots" not in key}
        | {key: value for key, value in tensors.items() if "slots" in key},
        policy / name,
    )
    with pytest.raises(InputError, match=reason):
        load_policy(policy)


def test_an_adapter_for_what_the_base_lacks_is_refused(policy: Path) -> None:
    path = policy / "adapter_model.safetensors"
    name = "base_model.model.model.visual.nothing.lora_A.weight"
    save_file(load_file(path) | {name: torch.zeros(2, 2)}, path)
    with pytest.raises(InputError, match=r"it adapts 'model\.visual\.nothing'"):
        load_policy(policy)


def test_an_adapter_without_tensors_is_refused(policy: Path) -> None:
    save_file({"x": torch.zeros(1)}, policy / "adapter_model.safetensors")
    with pytest.raises(InputError, match="it adapts 'nothing'"):
        load_policy(policy)


def test_a_pickle_beside_the_policy_is_never_loaded(policy: Path) -> None:
    (policy / "adapter_model.safetensors").rename(policy / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors, but there is no such file"):
        load_policy(policy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(r=0), "is no LoRA configuration"),
        (lambda d: d.pop("lora_alpha"), "is no LoRA configuration"),
        (lambda d: d.update(r=[1]), "is no LoRA configuration"),
        (lambda d: d.update(peft_type="IA3"), "sets 'peft_type' to 'IA3', which is not applied here"),
        (lambda d: d.update(alpha_pattern={".*": 9}), "sets 'alpha_pattern' to"),
        (lambda d: d.update(modules_to_save=["lm_head"]), "sets 'modules_to_save' to"),
        (lambda d: d.update(megatron_config={"a": 1}), "sets 'megatron_config' to"),
        (lambda d: d.update(invention=True), "sets 'invention' to True"),
        (lambda d: d.update(use_dora=True), "lora_magnitude_vector.* was expected, nothing came"),
    ],
)
def test_an_adapter_that_would_mean_something_else_is_refused(policy: Path, change: Change, reason: str) -> None:
    edit(policy / "adapter_config.json", change)
    with pytest.raises(InputError, match=reason):
        load_policy(policy)


def test_what_other_versions_of_peft_add_without_effect_is_taken(policy: Path) -> None:
    edit(policy / "adapter_config.json", lambda d: (d.update(new_thing=None, peft_version="0.30"), d.pop("lora_bias")))
    assert load_policy(policy).spec.chunk == 4
