"""Operators' pseudonyms: the same for the same id and key, nothing without the key, no key near the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign_data import campaign_of

from lehrling.collection.campaign_model import Campaign
from lehrling.collection.pseudonyms import make_key, pseudonym, read_key
from lehrling.datasets.errors import InputError


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    make_key(tmp_path / "keys" / "operators.key")
    return campaign_of(tmp_path, operators={"key_file": "keys/operators.key"})


def test_an_id_keeps_its_pseudonym_and_shows_nothing_of_itself(campaign: Campaign, tmp_path: Path) -> None:
    first, again = (pseudonym(campaign, name, tmp_path / "cell.zarr") for name in ("4711", " 4711 "))
    assert first == again
    assert first is not None
    assert first.startswith("op-")
    assert len(first) == 15
    assert "4711" not in first
    assert pseudonym(campaign, "4712", tmp_path / "cell.zarr") != first


def test_the_pseudonym_is_the_hmac_of_campaign_and_id(campaign: Campaign, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "operators.key"
    path.write_bytes(b"k" * 32)
    assert pseudonym(campaign, "4711", tmp_path / "cell.zarr") == "op-9464f1f33824"


def test_another_key_or_campaign_gives_another_pseudonym(campaign: Campaign, tmp_path: Path) -> None:
    here = pseudonym(campaign, "4711", tmp_path / "cell.zarr")
    elsewhere = campaign.model_copy(update={"name": "other"})
    assert pseudonym(elsewhere, "4711", tmp_path / "cell.zarr") != here
    (tmp_path / "keys" / "operators.key").unlink()
    make_key(tmp_path / "keys" / "operators.key")
    assert pseudonym(campaign, "4711", tmp_path / "cell.zarr") != here


@pytest.mark.parametrize("nobody", [None, "", "  "])
def test_nobody_has_no_pseudonym(campaign: Campaign, tmp_path: Path, nobody: str | None) -> None:
    assert pseudonym(campaign, nobody, tmp_path / "cell.zarr") is None


def test_ids_that_are_pseudonyms_already_are_kept_if_they_look_like_it(tmp_path: Path) -> None:
    given = campaign_of(tmp_path, operators={"pseudonyms": "given"})
    assert pseudonym(given, "op-17", tmp_path / "cell.zarr") == "op-17"
    with pytest.raises(InputError, match="'Erika Mustermann'"):
        pseudonym(given, "Erika Mustermann", tmp_path / "cell.zarr")


def test_a_key_is_made_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "operators.key"
    make_key(path)
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, 32)
    with pytest.raises(InputError, match="already"):
        make_key(path)


def test_a_key_inside_the_dataset_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "cell.zarr" / "operators.key")
    (tmp_path / "link").symlink_to(tmp_path / "cell.zarr")
    for folder in ("cell.zarr", "link"):
        with pytest.raises(InputError, match="inside the dataset"):
            read_key(tmp_path / folder / "operators.key", tmp_path / "cell.zarr")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0, "umask 077; head -c 32"),
        (b"k" * 32, 0o640, "chmod 600"),
        (b"k" * 31, 0o600, "at least 32 random bytes"),
    ],
)
def test_a_key_that_cannot_be_trusted_is_refused_with_the_remedy(
    tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    path = tmp_path / "operators.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(InputError, match=words):
        read_key(path, tmp_path / "cell.zarr")
