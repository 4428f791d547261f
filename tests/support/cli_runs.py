"""Run the command, in this process or as people do, and look at what people and programs would see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lehrling.cli.main import run
from lehrling.cli.output import set_debug

SCRIPT = str(Path(sys.executable).with_name("lehrling"))
SENTENCES_MAX = 2


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


@dataclass(frozen=True)
class Outcome:
    """Exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Stdout as JSON, which must be all that is there, and without NaN or Infinity."""
        return json.loads(self.out, parse_constant=_no_number)

    @property
    def told(self) -> str:
        """The error on one line, without progress bars."""
        _, _, text = self.err.partition("lehrling: ")
        return " ".join(text.split())

    def refused(self, *words: str, code: int = 2, sentences: int = SENTENCES_MAX) -> bool:
        """Whether it was refused with nothing on stdout and in few sentences that name `words`, without a traceback."""
        assert "Traceback" not in self.err, self.err
        assert "bug" not in self.told, self.told
        assert 1 <= self.told.rstrip(".").count(". ") + 1 <= sentences, self.told
        assert self.told.endswith("."), self.told
        assert ".." not in self.told.replace("'../", ""), self.told
        assert all(word in self.told for word in words), (words, self.told)
        return self.code == code and self.out == ""


class Command:
    """Calls `lehrling` with arguments, in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capture = capfd

    def __call__(self, *arguments: object) -> Outcome:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        set_debug(False)
        seen = self._capture.readouterr()
        return Outcome(int(ended.value.code or 0), seen.out, seen.err)


def script(*arguments: object, stdout: int = subprocess.PIPE) -> Outcome:
    """Call the installed `lehrling` as a process of its own, its output buffered as it is for most people."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    return Outcome(done.returncode, done.stdout or "", done.stderr)
