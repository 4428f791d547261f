"""What `lehrling inspect --campaign FILE` shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaign_data import Recorded, write_campaign

from lehrling.cli.campaign_view import show_campaign
from lehrling.datasets.errors import InputError


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    made = Recorded(tmp_path / "cell.zarr")
    for outcome in ("success", "failure", "success", "success"):
        made.add_cell(outcome=outcome, operator="op-0123456789ab")
    made.add()
    return made


def test_the_tables_fit_80_columns_and_tell_what_is_missing(
    recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_campaign(recorded.root, write_campaign(tmp_path), json_=False)
    out, err = capfd.readouterr()
    assert "small_parts: 2 of 8 episodes, 25%" in out
    assert "red part, left" in out
    assert "75%" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "op-" not in out
    assert "1 of 4 cells are full" in err
    assert "1 other episodes" in err


def test_operators_are_shown_where_the_campaign_says_so(
    recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    show_campaign(recorded.root, write_campaign(tmp_path, operators={"figures": True}), json_=False)
    assert "op-0123456789ab" in capfd.readouterr().out


def test_json_is_the_whole_report(recorded: Recorded, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    show_campaign(recorded.root, write_campaign(tmp_path), json_=True)
    data = json.loads(capfd.readouterr().out)
    assert data["progress"]["counted"] == 2
    assert [station["episodes"] for station in data["stations"]] == [4, 0]


def test_what_is_not_there_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        show_campaign(recorded.root, tmp_path / "none.yaml", json_=True)
    with pytest.raises(InputError):
        show_campaign(tmp_path / "none.zarr", write_campaign(tmp_path), json_=True)
