"""Every command that the pages show exists, with its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_lines import check_command_line

ROOT = Path(__file__).parents[2]
PAGES = ("policy-node.md", "export.md", "audit.md", "serving.md", "driving.md")
FENCE = re.compile(r"^```\w*$", re.MULTILINE)


def commands(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = [line for block in FENCE.split(text)[1::2] for line in block.replace("\\\n", " ").splitlines()]
    shown = [line.removeprefix("$ ").split("  #")[0].rstrip(" &") for line in lines]
    return [line for line in shown if line.startswith("lehrling ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists(page: str) -> None:
    found = [check_command_line(line) for line in commands(page)]
    assert len(found) >= 2


def test_the_pages_show_the_verbs_that_they_are_about() -> None:
    shown = {check_command_line(line) for page in PAGES for line in commands(page)}
    assert shown >= {"run", "serve", "teleop", "replay", "guard reset", "audit verify", "bundle make", "export policy"}
