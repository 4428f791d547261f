"""The made-up PLC, where it is told wrong things."""

from __future__ import annotations

from pathlib import Path

import pytest
from cell_rig import running

pytest.importorskip("asyncua")

from lehrling.datasets.errors import InputError
from lehrling.deploy.plc_simulator import PlcError, PlcOptions, PlcSimulator


def test_a_plc_with_a_wrong_password_is_told_so(tmp_path: Path) -> None:
    with (
        running(tmp_path) as cell,
        pytest.raises(InputError, match="does not answer"),
        cell.plc(password="wrong", wait_s=1.0),
    ):
        pass


def test_a_plc_without_a_cell_is_told_so(tmp_path: Path) -> None:
    options = PlcOptions("opc.tcp://127.0.0.1:9/lehrling/", "operator", "x", tmp_path, wait_s=1.0)
    with pytest.raises(InputError, match="does not answer"), PlcSimulator(options):
        pass


def test_a_plc_whose_command_is_refused_says_why(tmp_path: Path) -> None:
    with running(tmp_path) as cell, cell.plc() as plc:
        plc.permit()
        plc.until(lambda: cell.runtime.enabled)
        with pytest.raises(PlcError, match="refused LOAD: recipe unknown"):
            plc.cycle(77)
