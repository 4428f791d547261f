"""Buttons, keys and services mean the same; a pedal needs one button."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.controls import BUTTONS, KEYS, KEYS_HELP, Buttons, Control, obey, parse_buttons
from lehrling.collection.session import Phase
from lehrling.datasets.errors import InputError


@dataclass
class Told:
    """Notes what a session is told."""

    phase: Phase = Phase.IDLE
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def note(self, *words: str) -> str:
        self.calls.append(words)
        return "id"

    def start(self) -> str:
        return self.note("start")

    def save(self, outcome: str) -> str:
        return self.note("save", outcome)

    def discard(self) -> str:
        return self.note("discard")

    def label(self, outcome: str) -> str:
        return self.note("label", outcome)


@pytest.mark.parametrize(
    ("control", "call"),
    [
        (Control.START, ("start",)),
        (Control.SAVE, ("save", "success")),
        (Control.FAILURE, ("save", "failure")),
        (Control.DISCARD, ("discard",)),
        (Control.MARK_SUCCESS, ("label", "success")),
        (Control.MARK_FAILURE, ("label", "failure")),
    ],
)
def test_each_control_is_one_word_to_the_session(control: Control, call: tuple[str, ...]) -> None:
    session = Told()
    assert obey(session, control) == "id"  # type: ignore[arg-type]
    assert session.calls == [call]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_pedal_begins_and_saves_as_success(phase: Phase) -> None:
    session = Told(phase)
    obey(session, Control.TOGGLE)  # type: ignore[arg-type]
    assert session.calls == [("save", "success") if phase is Phase.RECORDING else ("start",)]


def test_quitting_is_not_a_sessions_business() -> None:
    with pytest.raises(InputError, match="cannot quit"):
        obey(Told(), Control.QUIT)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 1), max_size=5), max_size=30))
def test_a_button_tells_when_it_goes_down_and_never_before_it_was_seen_up(messages: list[list[int]]) -> None:
    buttons = Buttons(BUTTONS)
    before: list[int | None] = [None] * len(BUTTONS)
    for message in messages:
        down = [message[place] if place < len(message) else 0 for place in range(len(BUTTONS))]
        wanted = [control for control, was, now in zip(BUTTONS, before, down, strict=True) if was == 0 and now]
        assert buttons.pressed(message) == wanted
        before = list(down)


def test_a_button_held_down_when_the_recorder_begins_means_nothing_until_it_was_up() -> None:
    buttons = Buttons([Control.TOGGLE])
    assert [buttons.pressed([state]) for state in (1, 1, 0, 1, 1, 0)] == [[], [], [], [Control.TOGGLE], [], []]


def test_buttons_are_named_in_the_parameters_and_unknown_names_refused() -> None:
    assert parse_buttons(["toggle", "mark_failure"]) == (Control.TOGGLE, Control.MARK_FAILURE)
    assert parse_buttons([]) == ()
    for name in ("quit", "jump", ""):
        with pytest.raises(InputError, match=f"Expected a button's meaning .* got '{name}'"):
            parse_buttons([name])


def test_every_key_has_one_character_and_the_help_names_them() -> None:
    assert all(len(key) == 1 for key in KEYS)
    assert all(f"{key} " in KEYS_HELP for key in KEYS if key.isalpha() and key != "s")
    assert set(Control) == set(KEYS.values())
