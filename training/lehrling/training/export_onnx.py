"""ONNX of the single-pass policy (Head R): one graph of fixed shapes, compared with torch before it is kept.

`OUT/policy.onnx` takes images, token ids, mask and state, and gives a chunk, all in physical units; `OUT/tokenizer` turns
instructions into ids, `OUT/policy.json` is the policy's own, `OUT/export.json` says shapes and how well it agrees.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.training.artefact import DESCRIPTION
from lehrling.training.export import (
    SAMPLES,
    Inputs,
    Trained,
    actions_of,
    agreed,
    new_folder,
    open_trained,
    random_inputs,
    write_facts,
)
from lehrling.training.export_graph import PolicyGraph, fixed_places
from lehrling.training.export_prompt import padded_prompt

GRAPH, TOKENIZER = "policy.onnx", "tokenizer"
INPUTS = ("images", "input_ids", "attention_mask", "state")
TOLERANCE = 1e-4
BESIDE_BYTES = 1 << 30
"""Weights beyond go into a file beside the graph, since a protobuf holds 2 GiB."""


def export_onnx(
    policy: Path, out: Path, *, base: str | None = None, tolerance: float = TOLERANCE, seed: int = 0
) -> dict[str, Any]:
    """Export a policy to ONNX and compare onnxruntime with torch on random inputs; return export.json.

    Raises:
        InputError: there is no policy, its head takes several passes, it does not load, or `out` is there.
        DamageError: the graph acts differently.
        StorageError: the disk is full or failed.
    """
    needs_packages()
    trained = open_trained(policy, base)
    if trained.description.head["kind"] != "regression":
        raise InputError(f"Expected a policy of one pass (head regression), got {trained.description.head['kind']!r}.")
    inputs = random_inputs(trained.description, SAMPLES, seed)
    wanted = actions_of(trained.model, inputs)
    with new_folder(out) as folder:
        written = _write_graph(trained, folder / GRAPH)
        trained.model.tokenizer.save_pretrained(folder / TOKENIZER)
        shutil.copyfile(policy / DESCRIPTION, folder / DESCRIPTION)
        found = _run(folder / GRAPH, trained, inputs)
        agreement = agreed(wanted, found, tolerance, seed, "ONNX graph")
        return write_facts(folder, "onnx", policy, {**written, "agreement": agreement.to_json()})


def needs_packages() -> None:
    """Say which packages are missing.

    Raises:
        InputError: naming them and how to have them.
    """
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"Exporting to ONNX needs {', '.join(missing)}; install lehrling-training[export].")


def _write_graph(trained: Trained, path: Path) -> dict[str, Any]:
    """Merge, trace, write; return what export.json says of the graph."""
    model = trained.model
    model.backbone = model.backbone.merge_and_unload(safe_merge=True)
    graph = PolicyGraph(model, trained.description).eval()
    example = _example(trained)
    with fixed_places(model), quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph, example, dynamo=True, input_names=list(INPUTS), output_names=["actions"], verbose=False
        )
        if program is None:
            raise InputError("Expected torch.onnx to return a program, got none; install the locked version of torch.")
        size = sum(p.numel() * p.element_size() for p in graph.parameters())
        program.save(path, external_data=size > BESIDE_BYTES)
    shapes = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in zip(INPUTS, example, strict=True)
    }
    chunk = [1, trained.description.chunk, len(trained.description.action_names)]
    return {
        "opset": int(program.model.opset_imports[""]),
        "inputs": shapes,
        "outputs": {"actions": {"shape": chunk, "dtype": "float32"}},
        "tokens_per_image": model.prompt.tokens_per_image,
        "relative_columns": list(trained.description.relative),
        "torch": torch.__version__,
    }


def _example(trained: Trained) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    drawn = random_inputs(trained.description, 1, 0)
    ids, mask = padded_prompt(trained.model, drawn.instructions[0])
    return drawn.images, ids, mask, drawn.state


def _run(path: Path, trained: Trained, inputs: Inputs) -> Tensor:
    """Return what onnxruntime makes of the inputs, normalised."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    state, action = trained.description.normalisers
    chunks = []
    for image, words, row in zip(inputs.images, inputs.instructions, inputs.state, strict=True):
        ids, mask = padded_prompt(trained.model, words)
        physical = state.inverse(row.numpy()[None])
        given = dict(zip(INPUTS, (image[None].numpy(), ids.numpy(), mask.numpy(), physical), strict=True))
        chunks.append(action.forward(np.asarray(session.run(["actions"], given)[0], np.float32)))
    return torch.from_numpy(np.concatenate(chunks))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice off the terminal; what matters of it is checked."""
    kept = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(kept)
