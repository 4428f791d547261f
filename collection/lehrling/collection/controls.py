"""What an operator can tell a session, by whatever means: services, keyboard, joystick or foot pedal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from lehrling.collection.session import Phase, Session
from lehrling.datasets.errors import InputError


class Control(StrEnum):
    """A word to the session; TOGGLE begins, or ends with success: all that one pedal needs."""

    TOGGLE = "toggle"
    START = "start"
    SAVE = "save"
    FAILURE = "save_failure"
    DISCARD = "discard"
    MARK_SUCCESS = "mark_success"
    MARK_FAILURE = "mark_failure"
    QUIT = "quit"


KEYS: Mapping[str, Control] = {
    " ": Control.TOGGLE,
    "s": Control.START,
    "\r": Control.SAVE,
    "\n": Control.SAVE,
    "f": Control.FAILURE,
    "d": Control.DISCARD,
    "+": Control.MARK_SUCCESS,
    "-": Control.MARK_FAILURE,
    "q": Control.QUIT,
    "\x03": Control.QUIT,
}
KEYS_HELP = "space begin/save · enter save · f save as failure · d discard · + - mark · q quit"
BUTTONS: tuple[Control, ...] = (Control.TOGGLE, Control.FAILURE, Control.DISCARD)
"""Of a Joy message: a pedal has the first, most joysticks all."""


def obey(session: Session, control: Control) -> str:
    """Do what was told; return an episode's id.

    Raises:
        LehrlingError: it cannot be done now; the message says why.
    """
    if control is Control.TOGGLE:
        control = Control.SAVE if session.phase is Phase.RECORDING else Control.START
    if control is Control.START:
        return session.start()
    if control is Control.SAVE:
        return session.save("success")
    if control is Control.FAILURE:
        return session.save("failure")
    if control is Control.DISCARD:
        return session.discard()
    if control is Control.MARK_SUCCESS:
        return session.label("success")
    if control is Control.MARK_FAILURE:
        return session.label("failure")
    raise InputError(f"A session cannot {control}; end the recorder instead.")


class Buttons:
    """Tells which buttons of a Joy message were just pressed; one held down counts once."""

    def __init__(self, controls: Sequence[Control] = BUTTONS) -> None:
        self._controls, self._held = tuple(controls), [True] * len(controls)

    def pressed(self, buttons: Sequence[int]) -> list[Control]:
        """Return what the newly pressed buttons mean; those held when the recorder begins mean nothing."""
        told = []
        for place, control in enumerate(self._controls):
            down = place < len(buttons) and bool(buttons[place])
            if down and not self._held[place]:
                told.append(control)
            self._held[place] = down
        return told


def parse_buttons(names: Sequence[str]) -> tuple[Control, ...]:
    """Return the controls of names, in the order of the buttons.

    Raises:
        InputError: an unknown name.
    """
    known = {control.value: control for control in Control if control is not Control.QUIT}
    for name in names:
        if name not in known:
            raise InputError(f"Expected a button's meaning ({', '.join(known)}), got {name!r}.")
    return tuple(known[name] for name in names)
