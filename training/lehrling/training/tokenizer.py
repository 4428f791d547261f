"""A tokenizer made in code, for models trained from scratch where no checkpoint's tokenizer is at hand."""

from __future__ import annotations

import string
from importlib.resources import files
from typing import Any

WORDS = tuple((files("lehrling.training") / "words.txt").read_text(encoding="utf-8").split())
"""Words that are one token; append only, because their order is their id."""
SPECIALS = (
    "<|pad|>",
    "<|unk|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<|slot|>",
)
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


def vocabulary() -> dict[str, int]:
    """Return token -> id: specials, whole words, then characters alone and inside words as fallback."""
    inside = [f"##{character}" for character in _CHARACTERS]
    tokens = [*SPECIALS, *WORDS, *[c for c in _CHARACTERS if c not in WORDS], *inside]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def make_tokenizer() -> Any:
    """Return a PreTrainedTokenizerFast: whole words where known, characters elsewhere; lower case, no downloads."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece(vocabulary(), unk_token="<|unk|>", max_input_chars_per_word=64))  # noqa: S106
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",  # noqa: S106
        unk_token="<|unk|>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIALS[2:])})
    return tokenizer
