"""The page on the recorder's features names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recorder-features.md"
ROW = re.compile(r"^\| (\d+) \| .* \| \[`(\w+(?:\.py)?)`\]\(\.\./(tests/\S+\.py)\) \|$")
ROWS = [match.groups() for line in PAGE.read_text(encoding="utf-8").splitlines() if (match := ROW.match(line))]
WANTED = {*range(1, 4), 5, 6, 8, 9, 10, *range(11, 18), 19, 20, 22, *range(25, 35), *range(37, 40)}


def test_every_row_of_the_first_release_is_there_once() -> None:
    numbers = [int(number) for number, _, _ in ROWS]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) == WANTED


@pytest.mark.parametrize(("number", "name", "path"), ROWS)
def test_the_test_of_a_row_exists(number: str, name: str, path: str) -> None:
    file = ROOT / path
    assert file.is_file(), number
    assert name == file.name or f"\ndef {name}(" in file.read_text(encoding="utf-8"), number


def test_every_page_of_the_docs_links_to_files_that_exist() -> None:
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
    for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        for target in link.findall(page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
