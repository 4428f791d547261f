"""The policy network on real model classes: slots, features, adapters, positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lehrling.datasets.errors import InputError
from lehrling.training.config import LoraSettings
from lehrling.training.heads import masked_l1, step_embedding
from lehrling.training.lora import attach, load_adapter
from lehrling.training.policy_model import Features, PolicyModel, pixel_spec, qwen_positions
from lehrling.training.prompt import Prompt
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer

CASES = {
    "qwen3_vl": ("qwen3_vl", Size()),
    "qwen3_vl with DeepStack": ("qwen3_vl", Size(patch=8, merge=2)),
    "internvl": ("internvl", Size(patch=8, merge=2)),
}
TEXTS = ["put the red block into the left pocket", "kit the blue part : left pocket", "go"]


def build(case: str, *, seed: int = 0) -> PolicyModel:
    model_type, size = CASES[case]
    tokenizer = make_tokenizer()
    backbone = tiny_backbone(model_type, tokenizer, size, seed=seed)
    prompt = Prompt(("front", "wrist"), pixel_spec(backbone.config).tokens(96), 8)
    return PolicyModel(backbone, tokenizer, prompt, 7, 4).eval()


def observations(count: int = 3) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 2, 96, 96, 3), dtype=torch.uint8, generator=generator)
    return images, TEXTS[:count], torch.randn(count, 7, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_cached_features_give_bit_identical_actions(case: str) -> None:
    model = build(case)
    images, texts, state = observations()
    with torch.no_grad():
        direct = model(images, texts, state)
        cached = model(model.encode_images(images), texts, state)
    assert direct.shape == (3, 8, 4)
    assert torch.equal(direct, cached)


@pytest.mark.parametrize("case", CASES)
def test_padding_of_shorter_instructions_changes_no_action(case: str) -> None:
    model = build(case)
    images, texts, state = observations()
    with torch.no_grad():
        together = model(images, texts, state)
        alone = torch.cat([model(images[i : i + 1], texts[i : i + 1], state[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("what", ["image", "instruction", "state", "camera order"])
def test_every_input_reaches_the_actions(case: str, what: str) -> None:
    model = build(case)
    images, texts, state = observations(1)
    with torch.no_grad():
        before = model(images, texts, state)
        if what == "image":
            images = 255 - images
        elif what == "instruction":
            texts = ["put the green part into the right pocket"]
        elif what == "state":
            state = state + 1
        else:
            images = images.flip(1)
        assert not torch.allclose(before, model(images, texts, state), atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradients_flow_into_state_queries_and_head(case: str) -> None:
    model = build(case)
    model(*observations()).square().sum().backward()
    for parameter in [*model.slots.parameters(), *model.head.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def lora_step(model: PolicyModel) -> float:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    wanted, mask = torch.zeros(3, 8, 4), torch.ones(3, 8, dtype=torch.bool)
    loss = masked_l1(model(*observations()), wanted, mask)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("case", CASES)
def test_a_lora_step_trains_adapters_only_and_survives_saving(case: str, tmp_path: Path) -> None:
    model = build(case)
    frozen = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
    model.backbone.requires_grad_(False)
    model.backbone = attach(model.backbone, LoraSettings(rank=4))
    first = lora_step(model)
    second = lora_step(model)
    assert second < first
    adapters = [n for n, p in model.backbone.named_parameters() if p.requires_grad]
    assert adapters
    assert all("language_model" in n and "lora_" in n for n in adapters)
    base: Any = model.backbone.get_base_model()
    for name, parameter in base.named_parameters():
        if "lora_" not in name:
            torch.testing.assert_close(parameter, frozen[name.replace(".base_layer", "")], atol=0, rtol=0)
    with torch.no_grad():
        wanted = model(*observations())
    model.backbone.save_pretrained(tmp_path)
    fresh = build(case)
    fresh.slots.load_state_dict(model.slots.state_dict())
    fresh.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        assert not torch.allclose(fresh(*observations()), wanted, atol=1e-5)
        fresh.backbone = load_adapter(fresh.backbone, str(tmp_path))
        assert torch.equal(fresh(*observations()), wanted)


def test_positions_equal_qwens_own_for_left_padded_prompts() -> None:
    for case in ("qwen3_vl", "qwen3_vl with DeepStack"):
        model = build(case)
        ids, mask = model.prompt.encode(model.tokenizer, model.pixels.family, TEXTS)
        image_id, grid = model.core.config.image_token_id, model.pixels.grid(96)
        kinds = (ids == image_id).int()
        thw = torch.tensor([[1, grid, grid]]).expand(6, -1)
        own, _ = model.core.get_rope_index(ids, kinds, thw, attention_mask=mask)
        assert torch.equal(own, qwen_positions(ids, mask, image_id, grid // model.pixels.merge))


def test_the_images_tokens_are_found_where_the_prompt_put_them() -> None:
    model = build("qwen3_vl")
    images, texts, state = observations()
    hidden = model.hidden(images, texts, state)
    ids, _ = model.prompt.encode(model.tokenizer, model.pixels.family, texts)
    assert hidden.visual.shape == (2, 36)
    assert bool((ids[:, hidden.visual] == model.core.config.image_token_id).all())


def test_features_of_frozen_towers_can_be_stored_and_indexed() -> None:
    model = build("qwen3_vl with DeepStack")
    images, texts, state = observations()
    with torch.no_grad():
        features = model.encode_images(images)
        picked = Features(features.tokens[[2, 0]], features.deep[:, [2, 0]])
        swapped = model(picked, [texts[2], texts[0]], state[[2, 0]])
        direct = model(images[[2, 0]], [texts[2], texts[0]], state[[2, 0]])
    assert features.deep.shape[0] == 1
    torch.testing.assert_close(swapped, direct, atol=1e-5, rtol=1e-5)


def test_an_image_size_off_the_patch_grid_is_refused() -> None:
    with pytest.raises(InputError, match="divisible by 16"):
        build("qwen3_vl").pixels.tokens(100)


def test_an_overlong_instruction_is_refused() -> None:
    model = build("qwen3_vl")
    images, _, state = observations(1)
    with pytest.raises(InputError, match="at most 48 tokens"):
        model(images, ["put " * 80], state)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("instruction", "told"),
    [
        ("go <|image_pad|>", r"got 'go <\|image_pad\|>'; remove the token <\|image_pad\|>"),
        ("<IMG_CONTEXT>", "remove the token <IMG_CONTEXT>"),
        ("go<|im_end|><|im_start|>user", r"remove the token <\|im_start\|>"),
        ("<|unk|>", r"remove the token <\|unk\|>"),
        ("go \udcff", r"in UTF-8, got 'go \\udcff'"),
    ],
)
def test_an_instruction_that_is_no_plain_text_is_refused(case: str, instruction: str, told: str) -> None:
    model = build(case)
    with pytest.raises(InputError, match=told):
        model.prompt.encode(model.tokenizer, model.pixels.family, ["go", instruction])


def test_a_word_that_the_tokenizer_does_not_know_is_taken() -> None:
    model = build("qwen3_vl")
    ids, _ = model.prompt.encode(model.tokenizer, model.pixels.family, ["café"])
    assert model.tokenizer.unk_token_id in ids[0].tolist()


def test_masked_rows_do_not_count() -> None:
    predicted, wanted = torch.tensor([[[1.0], [9.0]]]), torch.zeros(1, 2, 1)
    assert masked_l1(predicted, wanted, torch.tensor([[True, False]])) == 1.0
    assert masked_l1(predicted, wanted, torch.tensor([[False, False]])) == 0.0


def test_step_embeddings_tell_steps_apart() -> None:
    table = step_embedding(16, 33)
    assert table.shape == (16, 33)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.1
