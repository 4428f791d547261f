"""Tensors come from safetensors alone, and only of the names and shapes that are expected."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from lehrling.datasets.errors import InputError, StorageError
from lehrling.training.tensors import difference, load_module, read_tensors, under, writing


def test_tensors_are_read_back_and_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"a.x": torch.ones(2), "b.x": torch.zeros(3)}, path)
    assert read_tensors(path)["b.x"].tolist() == [0, 0, 0]
    chosen = read_tensors(path, lambda name: name.startswith("a."))
    assert list(under("a.", chosen)) == ["x"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"", "cannot be read as safetensors"),
        (b"{", "cannot be read as safetensors"),
        (b"\xff" * 100, "cannot be read as safetensors"),
        (pickle.dumps({"a": 1}), "cannot be read as safetensors"),
    ],
)
def test_what_is_no_safetensors_is_refused_with_its_path(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "head.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"x": torch.ones(2, 3)}, ""),
        ({"x": torch.ones(2, 3).half()}, ""),
        ({"x": torch.ones(3, 2)}, "x: [2, 3] was expected, [3, 2] came"),
        ({}, "x: [2, 3] was expected, nothing came"),
        ({"x": torch.ones(2, 3), "y": torch.ones(1)}, "y: nothing was expected, [1] came"),
        ({"x": torch.ones(2, 3).long()}, "x: [2, 3] was expected, [2, 3] torch.int64 came"),
    ],
)
def test_the_first_difference_is_named_with_both_sides(found: dict[str, torch.Tensor], sentence: str) -> None:
    assert difference({"x": torch.zeros(2, 3)}, found) == sentence


def test_a_module_takes_only_exactly_its_own_tensors() -> None:
    module = nn.Linear(2, 1)
    load_module(module, {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.zeros(1)}, "the head")
    assert module.weight.tolist() == [[3.0, 4.0]]
    with pytest.raises(InputError, match=r"the head does not fit this model: bias: \[1\] was expected, nothing came"):
        load_module(module, {"weight": torch.zeros(1, 2)}, "the head")
    assert module.weight.tolist() == [[3.0, 4.0]]


def test_what_cannot_be_written_is_named_with_the_place(tmp_path: Path) -> None:
    place = tmp_path / "absent" / "file.safetensors"
    with pytest.raises(StorageError, match=rf"Writing {place} failed: .*; check the disk"), writing(place):
        save_file({"a": torch.ones(2)}, place)
    with pytest.raises(StorageError, match="No space left on device"), writing(place):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
