"""The policy network: any listed backbone, slots written into its embeddings, Head R on its hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lehrling.training.families import Family, family_of
from lehrling.training.heads import HeadR, Slots
from lehrling.training.images import PixelSpec, model_inputs
from lehrling.training.prompt import Prompt


@dataclass(frozen=True)
class Features:
    """A frozen vision tower's output, all the language model needs of the images.

    Attributes:
        tokens: (B, C, n, D) visual tokens.
        deep: (K, B, C, n, D) extra features for early layers (Qwen3-VL's DeepStack), K may be 0.
    """

    tokens: Tensor
    deep: Tensor

    def to(self, device: torch.device) -> Features:
        """Return the features on a device."""
        return Features(self.tokens.to(device), self.deep.to(device))


@dataclass(frozen=True)
class Hidden:
    """Last hidden states (B, L, D) and where the cameras' visual tokens lie: (C, n) indices from the end (negative)."""

    states: Tensor
    visual: Tensor


def text_width(backbone: Any) -> int:
    """Return D, the language model's hidden size."""
    return int(backbone.config.get_text_config().hidden_size)


def pixel_spec(
    config: Any, mean: tuple[float, float, float] | None = None, std: tuple[float, float, float] | None = None
) -> PixelSpec:
    """Read the vision tower's geometry from a model configuration."""
    family: Family = family_of(config.model_type)
    vision = config.vision_config
    patch = vision.patch_size[0] if isinstance(vision.patch_size, (list, tuple)) else vision.patch_size
    merge = getattr(vision, "spatial_merge_size", None) or round(1 / getattr(config, "downsample_ratio", 1.0))
    temporal = getattr(vision, "temporal_patch_size", 1)
    return PixelSpec(family, int(patch), int(merge), int(temporal), mean or family.mean, std or family.std)


class PolicyModel(nn.Module):
    """Backbone, slots and Head R.

    Observations: images (B, C, h, w, 3) uint8 or cached Features, instructions, state (B, S) normalised.
    Output: actions (B, H, A), normalised. The backbone's LM head is never called.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        prompt: Prompt,
        state: int,
        actions: int,
        *,
        pixels: PixelSpec | None = None,
        head_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.prompt = backbone, tokenizer, prompt
        self.pixels = pixels or pixel_spec(self.core.config)
        width = text_width(self.core)
        self.slots = Slots(state, prompt.chunk, width, head_hidden)
        self.head = HeadR(width, actions, head_hidden)
        self._encoded: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    @property
    def core(self) -> Any:
        """The backbone without language-model head, adapters included once they are attached."""
        inner = self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone
        return inner.model

    def encode_images(self, images: Tensor) -> Features:
        """Run the vision tower on (B, C, h, w, 3) uint8 images."""
        batch, cameras = images.shape[:2]
        inputs = model_inputs(images.flatten(0, 1), self.pixels)
        out = self.core.get_image_features(**inputs, return_dict=True)
        tokens = _joined(out.pooler_output).reshape(batch, cameras, self.prompt.tokens_per_image, -1)
        deep = [_joined(d).reshape(tokens.shape) for d in getattr(out, "deepstack_features", None) or []]
        return Features(tokens, torch.stack(deep) if deep else tokens.new_zeros((0, *tokens.shape)))

    def hidden(self, images: Tensor | Features, instructions: list[str], state: Tensor) -> Hidden:
        """Return the language model's last hidden states over the whole prompt."""
        features = images if isinstance(images, Features) else self.encode_images(images)
        ids, mask = self._encode(instructions, state.device)
        arguments: dict[str, Any] = {"mm_encoder_outputs": {"image": self._as_output(features)}}
        if self.pixels.family.pixels == "qwen_patches":
            count = features.tokens.shape[0] * features.tokens.shape[1]
            edge = round(self.prompt.tokens_per_image**0.5) * self.pixels.merge
            arguments["position_ids"] = qwen_positions(ids, mask, self._image_id, edge // self.pixels.merge)
            arguments["image_grid_thw"] = torch.tensor([[1, edge, edge]], device=ids.device).expand(count, -1)
        attention = None if bool(mask.all()) else mask
        with self._slots_written(self.slots(state)):
            out = self.core(input_ids=ids, attention_mask=attention, use_cache=False, **arguments)
        return Hidden(out.last_hidden_state, self._visual_places(ids))

    def forward(self, images: Tensor | Features, instructions: list[str], state: Tensor) -> Tensor:
        """Return normalised actions (B, H, A)."""
        return self.act_on(self.hidden(images, instructions, state))

    def act_on(self, hidden: Hidden) -> Tensor:
        """Read the actions (B, H, A) out of hidden states."""
        return self.head(hidden.states[:, -self.prompt.chunk :].float())  # type: ignore[no-any-return]

    def _as_output(self, features: Features) -> Any:
        """Return what the family's `get_image_features` returns, with stored features in it."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        per_image = features.tokens.flatten(0, 1)
        if self.pixels.family.pixels != "qwen_patches":
            return BaseModelOutputWithDeepstackFeatures(pooler_output=per_image)
        deep = [tuple(level.flatten(0, 1)) for level in features.deep]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=tuple(per_image), deepstack_features=deep)

    @property
    def _image_id(self) -> int:
        return int(self.core.config.image_token_id)

    def _encode(self, instructions: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        key = tuple(instructions)
        if key not in self._encoded:
            if len(self._encoded) > 64:
                self._encoded.clear()
            self._encoded[key] = self.prompt.encode(self.tokenizer, self.pixels.family, instructions)
        ids, mask = self._encoded[key]
        return ids.to(device), mask.to(device)

    def _visual_places(self, ids: Tensor) -> Tensor:
        """Return (C, n) indices from the end; left padding keeps them equal over a batch."""
        places = torch.nonzero(ids[0] == self._image_id).reshape(len(self.prompt.cameras), -1)
        return places - ids.shape[1]

    @contextmanager
    def _slots_written(self, vectors: Tensor) -> Iterator[None]:
        """Overwrite the embeddings of the last 1 + H tokens while the block runs."""

        def write(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            return torch.cat([embedded[:, : -vectors.shape[1]], vectors.to(embedded.dtype)], dim=1)

        handle = self.core.get_input_embeddings().register_forward_hook(write)
        try:
            yield
        finally:
            handle.remove()


def qwen_positions(ids: Tensor, mask: Tensor, image_id: int, edge: int) -> Tensor:
    """Return Qwen's 3-D rotary positions (3, B, L) for prompts whose images are all edge x edge tokens.

    Equal to `get_rope_index`, without its loop over samples: text advances all three axes, an image's rows and columns
    start at the current position and advance it by `edge`. Padded places get 0.
    """
    image = (ids == image_id) & mask.bool()
    order = torch.cumsum(image, dim=1) - 1
    within = torch.where(image, order % (edge * edge), torch.zeros_like(order))
    last = image & (within == edge * edge - 1)
    advance = torch.where(image, torch.zeros_like(ids), mask) + edge * last.long()
    start = torch.cumsum(advance, dim=1) - advance
    rows = torch.where(image, start + within // edge, start)
    columns = torch.where(image, start + within % edge, start)
    return torch.stack([start, rows, columns]) * mask


def _joined(features: Any) -> Tensor:
    """Return one tensor where a family splits its features per image."""
    if isinstance(features, (list, tuple)):
        return torch.cat(list(features))
    return features.flatten(0, 1) if features.dim() == 3 else features  # type: ignore[no-any-return]
