"""Prompts of one length, as a graph of fixed shapes takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lehrling.training.families import Family
from lehrling.training.policy_model import PolicyModel
from lehrling.training.prompt import Prompt


def prompt_length(prompt: Prompt, tokenizer: Any, family: Family) -> int:
    """Return L, the tokens of a prompt whose instruction is as long as it may be."""
    opening, cameras = prompt.pieces(tokenizer, family)
    return len(opening) + prompt.instruction_tokens_max + len(cameras) + prompt.slots


def padded(prompt: Prompt, tokenizer: Any, family: Family, instruction: str) -> tuple[Tensor, Tensor]:
    """Return input ids and attention mask (1, L) int64, padded on the left to the longest prompt.

    Raises:
        InputError: the instruction is too long, is not UTF-8, or holds a special token.
    """
    ids, mask = prompt.encode(tokenizer, family, [instruction])
    short = prompt_length(prompt, tokenizer, family) - ids.shape[1]
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    padding = torch.full((1, short), int(filler))
    return torch.cat([padding, ids], dim=1), torch.cat([torch.zeros_like(padding), mask], dim=1)


def padded_prompt(model: PolicyModel, instruction: str) -> tuple[Tensor, Tensor]:
    """Return a policy's input ids and attention mask (1, L) int64 for an instruction.

    Raises:
        InputError: the instruction is too long, is not UTF-8, or holds a special token.
    """
    return padded(model.prompt, model.tokenizer, model.pixels.family, instruction)
