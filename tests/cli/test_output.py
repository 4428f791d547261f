"""What people are told: nobody who reads it changes what a verb does."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest

from lehrling.cli.output import print_json

PROGRAM = """
import os, sys
from lehrling.cli.output import guarded, say
def act():
    for number in range(3):
        say(f"sentence {number}")
    os.write(int(sys.argv[1]), b"done")
    return 7
sys.exit(guarded(act))
"""


def test_a_verb_goes_on_when_nobody_reads_what_it_says() -> None:
    """As `lehrling run … 2>&1 | tee log` after Ctrl-C, where tee is the first to end."""
    read, written = os.pipe()
    broken, said = os.pipe()
    os.close(broken)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(written)], stderr=said, pass_fds=(written,), timeout=60, check=False
    )
    os.close(said)
    os.close(written)
    assert (os.read(read, 100), process.returncode) == (b"done", 7)
    os.close(read)


def test_what_is_no_number_is_null_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": math.nan, "range": (-math.inf, 1.5, math.inf), "rows": [{"x": math.nan}], "n": 3})
    text = capfd.readouterr().out
    assert "NaN" not in text
    assert json.loads(text) == {"loss": None, "range": [None, 1.5, None], "rows": [{"x": None}], "n": 3}
