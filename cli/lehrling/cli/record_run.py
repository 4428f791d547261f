"""Run a recorder in a terminal, in a service, or in CI: keys, live view, and the report at the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lehrling.cli.output import DONE, FAILED, LOSS, say

if TYPE_CHECKING:
    from lehrling.collection.node import RecorderNode
    from lehrling.collection.recorder import Recorder, RecorderConfig

VIEW_S, SPIN_S = 0.25, 0.02


class _Signals:
    """Turns SIGTERM, SIGINT and a lost terminal into a wish to end, so that a running episode is saved and sealed."""

    def __init__(self) -> None:
        self.wanted = ""
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def _note(self, number: int, _frame: object) -> None:
        self.wanted = signal.Signals(number).name
        if number == signal.SIGHUP:
            _leave_terminal()

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Write nowhere instead of into a terminal that is gone, as when SSH was cut."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def _live(recorder: Recorder, keys: str, *, wanted: bool) -> Iterator[Any]:
    """Yield a function that shows the view now; it prints above what is said."""
    if not wanted:
        yield lambda texts: say("\n".join(texts)) if texts else None
        return
    from rich.console import Console
    from rich.live import Live

    from lehrling.cli.record_view import view

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(texts: list[str]) -> None:
            with suppress(OSError):
                for text in texts:
                    console.print(text, highlight=False, markup=False)
                live.update(view(recorder, keys), refresh=True)

        yield show


def run_recorder(config: RecorderConfig, parameters: dict[str, str], *, speak: bool) -> tuple[int, dict[str, Any]]:
    """Record until done, told to quit or interrupted; return the exit code and a report.

    Raises:
        LehrlingError: the recorder cannot start.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lehrling.collection.node import RecorderNode

    given = [word for name, value in parameters.items() if value for word in ("-p", f"{name}:={value}")]
    arguments = ["--ros-args", *given] if given else []
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    signals, node = _Signals(), RecorderNode(config)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        recorder = node.begin()
        cause = _loop(node, recorder, executor, signals, speak=speak)
        if recorder.session.sealing:
            say("sealing what was recorded …")
        node.close(cause)
        for told in recorder.session.said():
            say(told.text)
        return _verdict(recorder)
    finally:
        node.close("recorder failed")
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        rclpy.try_shutdown()
        signals.restore()


def _loop(node: RecorderNode, recorder: Recorder, executor: Any, signals: _Signals, *, speak: bool) -> str:
    """Spin, read keys and show, until it is over; return why."""
    from lehrling.collection.controls import KEYS, KEYS_HELP, Control
    from lehrling.collection.cues import Cues
    from lehrling.collection.keyboard import Keyboard
    from lehrling.collection.session import Phase
    from lehrling.datasets.errors import LehrlingError

    cues = Cues(speak=speak)
    if speak and cues.silent_because:
        say(cues.silent_because)
    shown, findings = 0.0, 0
    with Keyboard() as keyboard, _live(recorder, KEYS_HELP, wanted=sys.stderr.isatty()) as show:
        while not signals.wanted and recorder.session.phase is not Phase.DONE:
            executor.spin_once(timeout_sec=SPIN_S)
            texts = []
            for key in keyboard.pressed():
                control = KEYS.get(key.lower())
                if control is Control.QUIT:
                    return "operator quit"
                try:
                    _ = node.obey(control) if control is not None else None
                except LehrlingError as error:
                    texts.append(f"! {error}")
            for told in recorder.session.said():
                texts.append(f"! {told.text}" if told.loud else told.text)
                cues.say(told.cue)
            texts += [f"! {finding['text']}" for finding in recorder.findings[findings:] if finding["until_ns"] is None]
            findings = len(recorder.findings)
            if texts or time.monotonic() - shown >= VIEW_S:
                shown = time.monotonic()
                show(texts)
    return f"stopped by {signals.wanted}" if signals.wanted else "all episodes recorded"


def _verdict(recorder: Recorder) -> tuple[int, dict[str, Any]]:
    session = recorder.session
    lost = {record.id: list(record.losses) for record in session.sealed if record.losses}
    report = {
        "dataset": str(recorder.dataset.root),
        "sealed": [record.id for record in session.sealed],
        "outcomes": {record.id: record.outcome for record in session.sealed},
        "failed": session.failed,
        "losses": lost,
    }
    return (FAILED if session.failed else LOSS if lost else DONE), report
