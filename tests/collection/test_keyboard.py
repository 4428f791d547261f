"""Keys over a terminal and without one; no arrow key, held key or lost terminal does what nobody meant."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.keyboard import REPEAT_S, SEQUENCE_S, Keyboard


class Terminal:
    """A pseudo-terminal with a keyboard at one end and a person at the other."""

    def __init__(self) -> None:
        self.person, self.ours = pty.openpty()
        self.now_s = 100.0
        self.keyboard = Keyboard(self.ours, lambda: self.now_s)

    def press(self, text: str, after_s: float = 10.0) -> str:
        """Press keys and return what the keyboard gives."""
        self.now_s += after_s
        os.write(self.person, text.encode())
        select.select([self.ours], [], [], 5)
        return self.keyboard.pressed()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    with made.keyboard:
        yield made
    os.close(made.person)
    os.close(made.ours)


def test_single_keys_come_without_enter(terminal: Terminal) -> None:
    assert terminal.keyboard.terminal
    assert terminal.keyboard.pressed() == ""
    assert [terminal.press(key) for key in " fd\n+-q"] == list(" fd\n+-q")


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[D",
        "\x1b[A",
        "\x1bOQ",
        "\x1bOS",
        "\x1b[F",
        "\x1b[1;5D",
        "\x1b[15~",
        "\x1b[3;2~",
        "\x1bd",
        "\x1bq",
        "\x1b[200~",
    ],
)
def test_arrow_and_function_keys_mean_nothing(terminal: Terminal, sequence: str) -> None:
    assert terminal.press(sequence) == ""
    assert terminal.press(f"f{sequence}d") == "fd"


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_arrow_key_that_arrives_in_two_parts_means_nothing_either(terminal: Terminal, cut: int) -> None:
    sequence = "\x1b[1D"
    assert terminal.press(sequence[:cut]) == ""
    assert terminal.keyboard.pressed() == ""
    assert terminal.press(sequence[cut:], SEQUENCE_S / 2) == ""
    assert terminal.press("d") == "d"


def test_after_the_escape_key_the_next_key_counts(terminal: Terminal) -> None:
    assert terminal.press("\x1b") == ""
    assert terminal.press("d", 2 * SEQUENCE_S) == "d"


def test_a_key_that_is_held_down_counts_once(terminal: Terminal) -> None:
    assert terminal.press(" ") == " "
    assert terminal.press(" ", 0.66) == ""
    assert [terminal.press(" ", 0.04) for _ in range(20)] == [""] * 20
    assert terminal.press("f", 0.04) == "f"
    assert terminal.press(" ", REPEAT_S) == " "


@given(st.text(alphabet="\x1b[O1;~ dDfFqQ", max_size=30))
def test_whatever_is_typed_nothing_comes_that_was_not(text: str) -> None:
    person, ours = os.pipe()
    try:
        keyboard = Keyboard(person)
        os.write(ours, text.encode())
        read = keyboard.pressed()
        assert read == text
        plain = keyboard._plain(text)
    finally:
        os.close(person)
        os.close(ours)
    assert "\x1b" not in plain
    left = iter(text)
    assert all(key in left for key in plain)


def test_the_terminal_is_put_back_as_it_was(terminal: Terminal) -> None:
    person, ours = pty.openpty()
    before = termios.tcgetattr(ours)
    with Keyboard(ours):
        inside: list[Any] = termios.tcgetattr(ours)
        assert not inside[3] & termios.ICANON
        assert not inside[0] & termios.IXON
        assert inside[6][termios.VSUSP] == b"\x00"
        assert inside[3] & termios.ISIG
    assert termios.tcgetattr(ours) == before
    os.close(person)
    os.close(ours)


def test_a_terminal_that_is_gone_gives_no_keys_and_no_error() -> None:
    person, ours = pty.openpty()
    with Keyboard(ours) as keyboard:
        os.close(person)
        assert keyboard.pressed() == ""
        assert keyboard.pressed() == ""
    os.close(ours)


def test_without_a_terminal_the_characters_are_the_keys_until_the_end() -> None:
    ours, person = os.pipe()
    with Keyboard(ours) as keyboard:
        assert not keyboard.terminal
        assert keyboard.pressed() == ""
        os.write(person, b"  fq")
        assert keyboard.pressed() == "  fq"
        os.close(person)
        assert keyboard.pressed() == ""
        assert keyboard.pressed() == ""
    os.close(ours)


def test_in_a_service_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing, Keyboard(nothing.fileno()) as keyboard:  # noqa: PTH123
        assert keyboard.pressed() == ""
    monkeypatch.setattr(sys, "stdin", None)
    with Keyboard() as keyboard:
        assert not keyboard.terminal
        assert keyboard.pressed() == ""


BACKGROUND = """
    import os, signal, sys, time
    from lehrling.collection.keyboard import Keyboard
    os.setsid()
    ours = os.open(sys.argv[1], os.O_RDWR)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with Keyboard(ours) as keyboard:
            for _ in range(10):
                assert keyboard.pressed() == ""
                time.sleep(0.02)
        os._exit(7)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(child, signal.SIGKILL)
        sys.exit(f"stopped by signal {os.WSTOPSIG(status)}")
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_recorder_in_the_background_is_not_stopped_by_its_keyboard() -> None:
    person, ours = pty.openpty()
    os.write(person, b"d\n")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BACKGROUND), os.ttyname(ours)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    os.close(person)
    os.close(ours)
