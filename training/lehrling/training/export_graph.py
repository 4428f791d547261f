"""The policy network as one graph of fixed shapes, which torch.export can follow and ONNX can say.

It computes what `PolicyModel` does, in physical units, for a batch of one: the families' code asks tensors how many
images of which size there are, which no graph can; here that is known, so what follows from it is computed beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lehrling.training.artefact import Description
from lehrling.training.images import model_inputs
from lehrling.training.normalise import Normaliser
from lehrling.training.policy_model import PolicyModel, qwen_positions


class PolicyGraph(nn.Module):
    """Images (1, C, h, w, 3) uint8, input ids and mask (1, L) int64, state (1, S) -> actions (1, H, A), physical units.

    Adapters must be merged before. Actions are as trained: relative columns are still relative.
    """

    def __init__(self, model: PolicyModel, description: Description) -> None:
        super().__init__()
        self.model, self._qwen = model, model.pixels.family.pixels == "qwen_patches"
        for name, normaliser in zip(("state", "action"), description.normalisers, strict=True):
            self._keep(name, normaliser)
        self._vision: dict[str, Any] = {}
        if self._qwen:
            self._prepare(model.pixels.grid(description.image_px), len(description.cameras))

    def _keep(self, name: str, normaliser: Normaliser) -> None:
        self.register_buffer(f"{name}_offset", torch.tensor(normaliser.offset, dtype=torch.float32))
        self.register_buffer(f"{name}_scale", torch.tensor(normaliser.scale, dtype=torch.float32))

    def _prepare(self, grid: int, cameras: int) -> None:
        """Compute what Qwen's vision towers derive from the images' sizes."""
        from transformers import vision_utils

        tower = self.model.core.visual
        sizes = torch.tensor([[1, grid, grid]]).repeat(cameras, 1)
        facts = {
            "grid_thw": sizes,
            "position_ids": vision_utils.get_vision_position_ids(sizes, tower.spatial_merge_size),
        }
        self._vision["cu_seqlens"] = np.arange(cameras + 1) * grid * grid
        if hasattr(tower, "num_grid_per_side"):
            facts["interp_indices"], facts["interp_weights"] = (
                vision_utils.get_vision_interpolation_indices_and_weights(
                    sizes,
                    num_grid_per_side=tower.num_grid_per_side,
                    mode=tower.interpolation_mode,
                    align_corners=tower.interpolation_align_corners,
                    spatial_merge_size=tower.config.spatial_merge_size,
                )
            )
        if hasattr(tower, "window_size"):
            facts["window_index"], ends = vision_utils.get_vision_window_index(
                sizes, tower.spatial_merge_size, tower.window_size, tower.patch_size
            )
            self._vision["cu_window_seqlens"] = ends.numpy()
        for name, value in facts.items():
            self.register_buffer(f"vision_{name}", value)
            self._vision[name] = None

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, state: Tensor) -> Tensor:
        """Return actions (1, H, A) in physical units."""
        model, core = self.model, self.model.core
        tokens, deep = self._features(images)
        visual = input_ids == core.config.image_token_id
        embedded = core.get_input_embeddings()(input_ids)
        embedded = torch.where(visual[..., None], placed(visual, tokens), embedded)
        slots = model.slots((state - self.get_buffer("state_offset")) / self.get_buffer("state_scale"))
        embedded = torch.cat([embedded[:, : -slots.shape[1]], slots.to(embedded.dtype)], dim=1)
        options: dict[str, Any] = {}
        if self._qwen:
            edge = round(model.prompt.tokens_per_image**0.5)
            positions = qwen_positions(input_ids, attention_mask, int(core.config.image_token_id), edge)
            options["position_ids"] = positions
        if deep:
            options |= {"visual_pos_masks": visual, "deepstack_visual_embeds": deep}
        mask = causal(attention_mask)
        out = core.language_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False, **options)
        actions = model.head(out.last_hidden_state[:, -model.prompt.chunk :].float())
        return actions * self.get_buffer("action_scale") + self.get_buffer("action_offset")  # type: ignore[no-any-return]

    def _features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return all visual tokens (C * n, D), and those for early layers."""
        inputs = model_inputs(images[0], self.model.pixels)
        if not self._qwen:
            out = self.model.core.get_image_features(**inputs, return_dict=True)
            return out.pooler_output.flatten(0, -2), []
        known = {n: self.get_buffer(f"vision_{n}") if value is None else value for n, value in self._vision.items()}
        out = self.model.core.visual(inputs["pixel_values"], **known, return_dict=True)
        return out.pooler_output, list(getattr(out, "deepstack_features", None) or [])


def causal(attention_mask: Tensor) -> Tensor:
    """Return who may look at whom (1, 1, L, L): at what came before and is no padding, and always at itself.

    A padded place that may look at nothing would be NaN, and a weight of 0 does not take that away.
    """
    length = attention_mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=attention_mask.device)
    return ((before & attention_mask.bool()[:, None, :]) | itself)[:, None]


def placed(visual: Tensor, tokens: Tensor) -> Tensor:
    """Return (1, L, D): the visual tokens (C * n, D) in turn where `visual` (1, L) holds, anything elsewhere."""
    order = (torch.cumsum(visual.long(), dim=1) - 1).clamp(min=0)
    return tokens[order]


@contextmanager
def fixed_places(model: PolicyModel) -> Iterator[None]:
    """Let early layers take visual features by place while the block runs, not by how many places a mask has."""
    language = model.core.language_model
    if not hasattr(language, "_deepstack_process"):
        yield
        return

    def add(hidden: Tensor, visual: Tensor, tokens: Tensor) -> Tensor:
        return torch.where(visual[..., None], hidden + placed(visual, tokens), hidden)

    language._deepstack_process = add
    try:
        yield
    finally:
        del language._deepstack_process
