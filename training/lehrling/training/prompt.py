"""The prompt: instruction, cameras, one state slot, H action slots, as token ids of fixed places from the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.training.families import Family

Order = Literal["instruction_first", "cameras_first"]
INSTRUCTION_CHARACTERS_MAX = 2_000


@dataclass(frozen=True)
class Prompt:
    """How observations become token ids.

    Attributes:
        cameras: names in the order in which their images appear.
        tokens_per_image: visual tokens of one image.
        chunk: H, the number of action slots.
        order: `instruction_first` lets visual tokens know, under causal attention, what is asked for.
    """

    cameras: tuple[str, ...]
    tokens_per_image: int
    chunk: int
    order: Order = "instruction_first"
    instruction_tokens_max: int = 48

    @property
    def slots(self) -> int:
        """Number of slots at the end: state and actions."""
        return 1 + self.chunk

    def pieces(self, tokenizer: Any, family: Family) -> tuple[list[int], list[int]]:
        """Return the ids of the turn's opening, and of the cameras with their placeholders."""
        opening = _ids(tokenizer, family.turn)
        cameras: list[int] = []
        placeholder = _id(tokenizer, family.image_token)
        for name in self.cameras:
            cameras += _ids(tokenizer, f"{name}:") + _ids(tokenizer, family.image[0])
            cameras += [placeholder] * self.tokens_per_image + _ids(tokenizer, family.image[1])
        return opening, cameras

    def encode(self, tokenizer: Any, family: Family, instructions: list[str]) -> tuple[Tensor, Tensor]:
        """Return input ids and attention mask (B, L) int64, padded on the left, slots last.

        Raises:
            InputError: an instruction is too long, is not UTF-8, or holds a special token.
        """
        opening, cameras = self.pieces(tokenizer, family)
        words = {text: self._words(tokenizer, family, text) for text in set(instructions)}
        longest = max(map(len, words.values()))
        filler = [_slot_id(tokenizer)] * self.slots
        ids, mask = [], []
        for text in instructions:
            said = words[text]
            body = said + cameras if self.order == "instruction_first" else cameras + said
            pad = longest - len(said)
            ids.append([_pad_id(tokenizer)] * pad + opening + body + filler)
            mask.append([0] * pad + [1] * (len(opening) + len(body) + self.slots))
        return torch.tensor(ids), torch.tensor(mask)

    def _words(self, tokenizer: Any, family: Family, instruction: str) -> list[int]:
        if len(instruction) > INSTRUCTION_CHARACTERS_MAX:
            raise InputError(
                f"Expected an instruction of at most {INSTRUCTION_CHARACTERS_MAX} characters, got {len(instruction)}."
            )
        if not _encodable(instruction):
            raise InputError(f"Expected an instruction in UTF-8, got {instruction[:60]!r}.")
        said = _ids(tokenizer, f"task: {instruction}")
        if len(said) > self.instruction_tokens_max:
            raise InputError(
                f"Expected an instruction of at most {self.instruction_tokens_max} tokens, got {len(said)}: "
                f"{instruction[:60]!r}; shorten it or raise prompt.instruction_tokens_max."
            )
        if special := set(said) & _special_ids(tokenizer, family, instruction):
            token = tokenizer.convert_ids_to_tokens(min(special))
            raise InputError(f"Expected an instruction in words, got {instruction[:60]!r}; remove the token {token}.")
        return said


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _special_ids(tokenizer: Any, family: Family, instruction: str) -> set[int]:
    """Return ids that no instruction may become; a word that the tokenizer does not know becomes one of them and may."""
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= {*tokenizer.all_special_ids, _id(tokenizer, family.image_token)}
    unknown = tokenizer.unk_token
    return special if unknown is None or unknown in instruction else special - {tokenizer.unk_token_id}


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _id(tokenizer: Any, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or found == tokenizer.unk_token_id:
        raise InputError(f"Expected the token {token} in the backbone's tokenizer; it is another family's.")
    return int(found)


def _pad_id(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _slot_id(tokenizer: Any) -> int:
    """Return any ordinary special token: its embedding is overwritten by the slots."""
    return int(tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id)
