"""A policy that acts through onnxruntime, behind the same protocol as the network it was exported from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import sha256_file
from lehrling.training.artefact import DESCRIPTION, Description, read_description
from lehrling.training.export_facts import FACTS, read_export
from lehrling.training.export_onnx import GRAPH, INPUTS, TOKENIZER, needs_packages
from lehrling.training.export_prompt import padded
from lehrling.training.families import family_of
from lehrling.training.normalise import NormaliserFacts
from lehrling.training.policy import TorchPolicy


class _Session(nn.Module):
    """An onnxruntime session where a policy's network is expected; it normalises itself."""

    def __init__(self, directory: Path, description: Description, tokens_per_image: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]
        from transformers import AutoTokenizer

        super().__init__()
        self._session: Any = onnxruntime.InferenceSession(str(directory / GRAPH), providers=["CPUExecutionProvider"])
        self._tokenizer = AutoTokenizer.from_pretrained(
            directory / TOKENIZER, trust_remote_code=False, local_files_only=True
        )
        self._family = family_of(description.base["model_type"], str(directory))
        self._prompt = description.make_prompt(tokens_per_image)

    def forward(self, images: Tensor, instructions: list[str], state: Tensor) -> Tensor:
        """Return actions (B, H, A) in physical units, one observation at a time."""
        return torch.cat([self._one(*row) for row in zip(images, instructions, state, strict=True)])

    def _one(self, image: Tensor, instruction: str, state: Tensor) -> Tensor:
        ids, mask = padded(self._prompt, self._tokenizer, self._family, instruction)
        values = (image[None].numpy(), ids.numpy(), mask.numpy(), state[None].numpy())
        chunk = self._session.run(["actions"], dict(zip(INPUTS, values, strict=True)))[0]
        return torch.from_numpy(np.asarray(chunk, np.float32))


def load_onnx(directory: Path) -> TorchPolicy:
    """Load an ONNX export; no base and no weights of torch are needed.

    Raises:
        InputError: there is none, a file of it is not what export.json says, or it cannot be loaded.
    """
    needs_packages()
    description = read_description(directory)
    facts = read_export(directory)
    if facts.get("kind") != "onnx":
        raise InputError(f"Expected an ONNX export at {directory}, but there is no {FACTS} that says so.")
    _check_files(directory, facts.get("files"))
    try:
        session = _Session(directory, description, int(facts["tokens_per_image"]))
    except InputError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"The ONNX export at {directory} cannot be loaded ({text}); export it again.") from error
    unchanged = replace(description, state=_unchanged(description.state), action=_unchanged(description.action))
    return TorchPolicy(session, unchanged)  # type: ignore[arg-type]


def _check_files(directory: Path, files: object) -> None:
    named = files if isinstance(files, dict) else {}
    for name in (GRAPH, DESCRIPTION, *named):
        path = directory / name
        if name not in named or not path.is_file() or sha256_file(path) != named[name]:
            raise InputError(
                f"The ONNX export at {directory} cannot be loaded ({name} is not the one in {FACTS}); export it again."
            )


def _unchanged(facts: NormaliserFacts) -> NormaliserFacts:
    """Return a normaliser of the same width that changes nothing: the graph has its own."""
    return {"offset": [0.0] * len(facts["offset"]), "scale": [1.0] * len(facts["scale"])}
