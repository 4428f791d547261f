"""Processes that a terminal's signals do not reach."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lehrling.datasets.processes import out_of_reach

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TRACKED = """
import os, signal, time
from multiprocessing import resource_tracker
from lehrling.datasets.processes import out_of_reach

with out_of_reach():
    pass
tracker = resource_tracker._resource_tracker
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(tracker._pid, number)
time.sleep(0.3)
assert os.waitpid(tracker._pid, os.WNOHANG) == (0, 0)
"""


def test_no_signal_of_a_terminal_reaches_a_process_even_before_its_first_line() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with out_of_reach():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    try:
        for number in SIGNALS:
            child.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
    finally:
        child.kill()
        child.communicate()


def test_the_tracker_of_shared_resources_outlives_a_lost_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", TRACKED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
