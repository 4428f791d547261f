"""models list, models check: what they say, what they return, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import Command

NATIVE = '{"model_type": "qwen3_vl"}'


def test_families_are_listed(lehrling: Command) -> None:
    facts = lehrling("models", "list", "--json").data
    assert {"qwen3_vl", "qwen2_5_vl", "internvl"} <= set(facts)
    table = lehrling("models", "list")
    assert (table.code, table.err) == (0, "")
    assert [name for name, family in facts.items() if name not in table.out or family["maker"] not in table.out] == []


def test_the_built_in_base_passes_and_shows_its_hashes(lehrling: Command) -> None:
    facts = lehrling("models", "check", "builtin:base", "--json").data
    assert (facts["source"], facts["model_type"]) == ("builtin:base", "qwen3_vl")
    assert {len(digest) for digest in (facts["weights_sha256"], *facts["files"].values())} == {64}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(facts["files"])
    assert f"weights {facts['weights_sha256']}" in lehrling("models", "check", "builtin:base").err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("builtin:other", ("config.json", "other")),
        ("absent", ("local directory", "builtin:base", "'absent'")),
        ("https://example.com/model", ("local directory", "https://example.com/model")),
        ("Qwen/Qwen3-VL-2B-Instruct", ("40 hex digits", "Qwen/Qwen3-VL-2B-Instruct")),
    ],
)
def test_a_source_that_is_none_is_refused(lehrling: Command, source: str, words: tuple[str, ...]) -> None:
    assert lehrling("models", "check", source, "--json").refused(*words)


def test_a_branch_is_no_revision(lehrling: Command) -> None:
    command = ("models", "check", "Qwen/Qwen3-VL-2B-Instruct", "--revision", "main")
    assert lehrling(*command).refused("40 hex digits", "'main'")


def test_a_hub_that_cannot_be_reached_is_told(lehrling: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_arguments: object, **_options: object) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    seen = lehrling("models", "check", "Qwen/Qwen3-VL-2B-Instruct", "--revision", "0" * 40)
    assert seen.refused("Qwen/Qwen3-VL-2B-Instruct", "Name or service not known", "local directory")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", ("config.json", "not JSON")),
        ("[]", ("config.json", "object", "list")),
        ("{}", ("allow-list", "qwen3_vl")),
        ('{"model_type": "mystery"}', ("allow-list", "'mystery'")),
        ('{"model_type": "qwen3_vl", "auto_map": {}}', ("config.json", "'auto_map'", "native checkpoint")),
        ('{"model_type": "qwen3_vl", "text": [{"auto_map": 1}]}', ("'text[0].auto_map'",)),
        (NATIVE, ("*.safetensors", "pickled")),
        (" " * (2 << 20), ("larger than",)),
        ("[" * 200_000, ("not JSON",)),
    ],
)
def test_a_checkpoint_that_breaks_a_rule_is_refused(
    lehrling: Command, tmp_path: Path, config: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    assert lehrling("models", "check", tmp_path).refused(str(tmp_path), *words)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json"])
def test_code_in_any_configuration_of_a_checkpoint_is_refused(lehrling: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(NATIVE, encoding="utf-8")
    (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoProcessor": "code.P"}}), encoding="utf-8")
    assert lehrling("models", "check", tmp_path).refused(name, "'auto_map'", "native checkpoint")


def test_a_malformed_tokenizer_configuration_is_refused(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(NATIVE, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    assert lehrling("models", "check", tmp_path).refused("tokenizer_config.json", "not JSON")
