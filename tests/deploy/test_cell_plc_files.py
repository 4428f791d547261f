"""What a plant engineer is told (page, SCL source) is what the cell does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from cell_rig import cell_config
from command_lines import check_command_line

from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.handshake_image import RESULTS, STATES, Command, Mode, Refusal
from lehrling.deploy.opcua_handshake import COMMAND_NODES, METHODS, STATUS_NODES
from lehrling.deploy.runtime import FAULTS
from lehrling.deploy.s7_layout import LAYOUT, SIZE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cell.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "deploy" / "plc" / "lehrling_handshake.scl").read_text(encoding="utf-8")
OPC_UA = {"UInt": "UInt16", "UDInt": "UInt32", "Bool": "Boolean", "String[64]": "String", "String[120]": "String"}


def test_the_data_block_holds_every_node_of_opc_ua_in_the_same_type() -> None:
    nodes = {name: type_ for name, (_, type_) in {**COMMAND_NODES, **STATUS_NODES}.items()}
    assert {name: OPC_UA[type_] for _, name, type_ in LAYOUT} == nodes
    assert list(COMMAND_NODES)[-1] == "CmdSeq"


def test_the_page_lists_the_layout() -> None:
    rows = re.findall(r"^\| (\d+\.\d) \| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE)
    assert tuple(rows) == LAYOUT
    assert f"{SIZE} bytes long" in PAGE


def test_the_scl_source_has_the_layout() -> None:
    body = SOURCE.split("STRUCT\n", 1)[1].split("END_STRUCT", 1)[0]
    rows = re.findall(r"^\s+(\w+) : ([\w\[\]]+);\s+// (\d+\.\d)", body, re.MULTILINE)
    assert tuple((offset, name, type_) for name, type_, offset in rows) == LAYOUT
    assert "S7_Optimized_Access := 'FALSE'" in SOURCE


def test_the_scl_source_opens_and_closes_its_blocks_and_declares_what_it_uses() -> None:
    code = re.sub(r"//.*", "", SOURCE)
    for word in ("TYPE", "STRUCT", "DATA_BLOCK", "FUNCTION_BLOCK", "IF", "FOR", "CASE"):
        opened = len(re.findall(rf"(?<![\w_]){word}(?![\w_])", code))
        assert opened == len(re.findall(rf"END_{word}(?![\w_])", code)), word
    assert len(re.findall(r"(?<!END_)\bVAR", code)) == len(re.findall(r"\bEND_VAR\b", code))
    declared = set(re.findall(r"^\s+(\w+)(?: \{[^}]*\})? : ", code, re.MULTILINE))
    used = set(re.findall(r"(?<!T)#(\w+)", code))
    assert used - {"Image"} <= declared
    assert set(re.findall(r"#Image\.(\w+)", code)) <= {name for _, name, _ in LAYOUT}


def test_numbers_on_the_page_and_in_the_source_are_the_cells() -> None:
    faults = re.findall(
        r"^\| (\d+) \| ([^|]+) \|", PAGE.split("| `ErrorCode` | meaning")[1].split("\n\n")[0], re.MULTILINE
    )
    assert {int(code): text for code, text in faults} == dict(FAULTS)
    refusals = re.findall(r"^\| (\d+) \|", PAGE.split("| `Refusal` | meaning")[1].split("\n\n")[0], re.MULTILINE)
    assert [int(code) for code in refusals] == list(Refusal)
    for line in (
        ", ".join(f"{number} {phase}" for phase, number in STATES.items()),
        ", ".join(f"{number} {result}" for result, number in RESULTS.items()),
    ):
        assert line in PAGE
        assert line in SOURCE
    assert [f"{command.value} {command.name.lower()}" for command in Command][:5] == [
        "0 none",
        "1 load",
        "2 start",
        "3 stop",
        "4 reset",
    ]
    assert "0 none, 1 load, 2 start, 3 stop, 4 reset, 5 acknowledge" in PAGE
    assert (Command.ACK, Mode.AUTOMATIC_EXTERNAL) == (5, 4)
    assert all(f"`{name}" in PAGE for name in METHODS)


def test_the_configuration_on_the_page_is_taken(tmp_path: Path) -> None:
    cell_config(tmp_path)
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    whole = yaml.safe_load(blocks[0])
    config = CellConfig.model_validate(whole)
    assert config.recipes[2].speed_max_pct == 60
    assert CellConfig.model_validate(whole | yaml.safe_load(blocks[1])).s7 is not None


def test_the_commands_on_the_page_are_the_real_ones() -> None:
    block = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    lines = [shlex.join(shlex.split(line, comments=True)) for line in block[1].replace("\\\n", " ").splitlines()]
    assert [check_command_line(line) for line in lines if line] == [
        "cell-user",
        "cell-user",
        "cell",
        "cell",
        "cell-plc",
    ]
