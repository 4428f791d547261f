"""Cues are spoken where a machine can; they never hold the recorder up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lehrling.collection.cues import Cues


@pytest.fixture
def spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a speaker that notes its words, and speaks until there is a file `over`; return where."""
    notes = tmp_path / "spoken"
    speaker = tmp_path / "bin" / "espeak"
    speaker.parent.mkdir()
    speaker.write_text(f'#!/bin/sh\necho "$*" >> {notes}\nwhile [ ! -e {tmp_path}/over ]; do sleep 0.02; done\n')
    speaker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{speaker.parent}:/usr/bin:/bin")
    return notes


def heard(notes: Path, count: int) -> list[str]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = notes.read_text().splitlines() if notes.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    raise TimeoutError


def test_words_are_spoken_without_waiting_and_not_over_each_other(spoken: Path) -> None:
    cues = Cues(speak=True)
    assert cues.silent_because == ""
    cues.say("recording episode 3")
    assert heard(spoken, 1) == ["recording episode 3"]
    cues.say("saved")
    cues.say("")
    (spoken.parent / "over").touch()
    assert cues._running is not None
    cues._running.wait(30)
    cues.say("discarded")
    assert heard(spoken, 2) == ["recording episode 3", "discarded"]


def test_nothing_is_spoken_unasked(spoken: Path) -> None:
    Cues(speak=False).say("saved")
    time.sleep(0.1)
    assert not spoken.exists()


def test_a_machine_that_cannot_speak_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cues = Cues(speak=True)
    assert cues.silent_because == "nothing speaks here: none of spd-say, espeak-ng, espeak, say is installed"
    cues.say("saved")


def test_a_speaker_that_breaks_is_left_alone(spoken: Path) -> None:
    cues = Cues(speak=True)
    (spoken.parent / "bin" / "espeak").unlink()
    cues.say("saved")
    cues.say("saved")
    assert not spoken.exists()
