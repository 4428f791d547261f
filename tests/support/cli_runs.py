"""Run the command in this process and look at what people and programs would see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from lehrling.cli.main import run
from lehrling.cli.output import set_debug


@dataclass(frozen=True)
class Outcome:
    """Exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Stdout as JSON, which must be all that is there."""
        return json.loads(self.out)

    def refused(self, *words: str) -> bool:
        """Whether it was bad usage or input, told in at most two sentences that name `words`, without a traceback."""
        text = " ".join(self.err.split())
        sentences = text.rstrip(".").count(". ") + 1
        assert "Traceback" not in self.err, self.err
        assert "bug" not in text, text
        assert sentences <= 3, text
        assert all(word in text for word in words), text
        return self.code == 2 and self.out == ""


class Command:
    """Calls `lehrling` with arguments."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capture = capfd

    def __call__(self, *arguments: object) -> Outcome:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        set_debug(False)
        seen = self._capture.readouterr()
        return Outcome(int(ended.value.code or 0), seen.out, seen.err)
