"""edit, snapshot, diff, card: what they say to people and programs, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_runs import Command
from edited import copied, small_dataset, valid, words

from lehrling.datasets.edit_pending import PendingEdit, begin_edit


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("made") / "plant.zarr", ("one", "two"), 0.6)


@pytest.fixture
def plant(recorded: Path, tmp_path: Path) -> Path:
    return copied(recorded, tmp_path / "plant.zarr")


def test_delete_restore_and_undo_tell_what_they_did(lehrling: Command, plant: Path) -> None:
    seen = lehrling("edit", "delete", plant, "one", "--reason", "loose gripper")
    assert (seen.code, seen.out) == (0, "")
    assert "deleted one: loose gripper (edit 1; `lehrling edit undo` takes it back)" in seen.err
    assert lehrling("inspect", plant, "one").refused("'one' is deleted: loose gripper")
    facts = lehrling("edit", "undo", plant, "--json").data
    assert facts == [
        {
            "verb": "undo", "number": 2, "changed": ["one"], "made": [], "skipped": {},
            "words": "took back delete number 1 (deleted one: loose gripper)",
        }
    ]  # fmt: skip
    assert lehrling("edit", "undo", plant).refused("no edit left", str(plant))
    lehrling("edit", "delete", plant, "one", "two")
    assert lehrling("edit", "restore", plant, "--where", "id == 'two'", "--json").data["changed"] == ["two"]
    assert valid(plant) == ["two"]


def test_label_chooses_by_filter_and_sets_everything(lehrling: Command, plant: Path) -> None:
    line = ["--outcome", "failure", "--task", "sorting", "--instruction", "sort it", "--tag", "dark", "--tag", "slow"]
    facts = lehrling("edit", "label", plant, "--where", "id.startswith('o')", *line, "--json").data
    assert facts["changed"] == ["one"]
    record = words(plant)["one"]
    assert (record.outcome, record.task, record.instruction) == ("failure", "sorting", "sort it")
    assert record.tags == ("dark", "slow")
    lehrling("edit", "label", plant, "one", "--untag", "slow")
    assert words(plant)["one"].tags == ("dark",)
    assert lehrling("edit", "label", plant, "one", "--untag", "slow", "--json").data["number"] is None
    assert lehrling("inspect", plant, "--where", "'dark' in tags", "--json").data["ids"] == ["one"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("delete {}", "Expected episode ids or a filter"),
        ("delete {} three", "There is no episode 'three'"),
        ("delete {} --where colour==1", "known are"),
        ("delete {} one --where True", "one of both"),
        ("label {} one", "Expected an outcome"),
        ("label {} one --outcome good", "success, failure, unknown"),
        ("trim {} one", "Expected times that keep a part"),
        ("trim {} one --from 5", "within the 0.592 s"),
        ("split {} one", "at least one time"),
        ("restore {} one", "but 'one' is sealed"),
        ("merge {} {}", "Expected another dataset"),
        ("merge {} /nowhere", "/nowhere"),
        ("undo {}", "no edit left"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_a_sentence(lehrling: Command, plant: Path, line: str, told: str) -> None:
    before = (plant / "manifest.jsonl").read_bytes()
    assert lehrling("edit", *line.format(plant, plant).split()).refused(told)
    assert (plant / "manifest.jsonl").read_bytes() == before


def test_merge_into_a_missing_source_makes_no_dataset(lehrling: Command, tmp_path: Path) -> None:
    assert lehrling("edit", "merge", tmp_path / "new.zarr", tmp_path / "none.zarr").refused("none.zarr")
    assert not (tmp_path / "new.zarr").exists()


def test_trim_split_and_log(lehrling: Command, plant: Path) -> None:
    assert lehrling("edit", "trim", plant, "one", "--from", "0.1", "--to", "-0.1", "--json").data["made"] == ["one.t1"]
    assert lehrling("edit", "split", plant, "two", "--at", "0.3", "--json").data["made"] == ["two.s1", "two.s2"]
    lehrling("edit", "undo", plant)
    assert valid(plant) == ["one.t1", "two"]
    log = lehrling("edit", "log", plant, "--json").data
    assert [(e["number"], e["verb"], e["undone_by"]) for e in log] == [
        (1, "trim", None),
        (2, "split", 3),
        (3, "undo", None),
    ]
    assert log[0]["words"] == "trimmed one to 0.1 s until -0.1 s"
    seen = lehrling("edit", "log", plant).out
    assert "trimmed one" in seen
    assert "taken back by 3" in seen
    assert lehrling("verify", plant, "--json").data["whole"]


def test_merge_makes_a_dataset_of_several(lehrling: Command, plant: Path, tmp_path: Path) -> None:
    new = tmp_path / "all.zarr"
    facts = lehrling("edit", "merge", new, plant, "--where", "id == 'two'", "--json").data
    assert (facts["made"], facts["words"]) == (["two"], "merged two of plant.zarr")
    assert lehrling("edit", "merge", new, plant, "--json").data["skipped"] == {"two": "is here already"}
    assert valid(new) == ["one", "two"]


def test_purge_names_what_else_holds_the_same_frames(lehrling: Command, plant: Path) -> None:
    lehrling("edit", "trim", plant, "one", "--from", "0.1")
    lehrling("snapshot", plant, "v1")
    seen = lehrling("edit", "purge", plant, "one.t1", "--yes")
    assert "pinned in v1: no view can be built" in seen.err
    assert "rows of it are in one too; purge these as well, or use --family" in seen.err
    assert lehrling("view", plant, "--snapshot", "v1").refused("'v1' holds episode 'one.t1', which is purged")
    lehrling("edit", "trim", plant, "two", "--from", "0.1")
    facts = lehrling("edit", "purge", plant, "two", "--family", "--yes", "--json").data
    assert facts == {"purged": ["two", "two.t1"], "left": []}
    assert not (plant / "episodes" / "two.t1").exists()


def test_purge_frees_the_room_of_what_was_replaced(lehrling: Command, plant: Path) -> None:
    lehrling("edit", "trim", plant, "one", "two", "--from", "0.1")
    where = ["--where", "status == 'replaced'"]
    facts = lehrling("edit", "purge", plant, *where, "--yes", "--json").data
    assert facts == {"purged": ["one", "two"], "left": ["one.t1", "two.t1"]}
    assert sorted(p.name for p in (plant / "episodes").iterdir() if p.is_dir()) == ["one.t1", "two.t1"]
    assert lehrling("edit", "purge", plant, *where, "--yes").refused("passes the filter")


def test_an_interrupted_merge_is_told_by_the_log(lehrling: Command, plant: Path) -> None:
    begin_edit(plant, PendingEdit(1, "merge", ("three", "four")))
    assert "a merge of 2 episodes is at work or was interrupted" in lehrling("edit", "log", plant).err
    assert lehrling("repair", plant, "--json").data["mended"] == ["took back the interrupted merge"]
    assert lehrling("edit", "log", plant, "--json").data == []


def test_a_view_of_a_snapshot_is_the_same_after_edits(lehrling: Command, plant: Path) -> None:
    made = lehrling("snapshot", plant, "v1", "--json").data
    assert (made["snapshot"], made["episodes"], len(made["hash"])) == ("v1", 2, 64)
    first = lehrling("view", plant, "--name", "a", "--snapshot", "v1", "--json").data
    assert first["snapshot"] == {"name": "v1", "hash": made["hash"]}
    lehrling("edit", "trim", plant, "one", "--from", "0.2")
    lehrling("edit", "delete", plant, "two")
    again = lehrling("view", plant, "--name", "b", "--snapshot", "v1", "--json").data
    assert (again["key"], again["rows"], again["episodes"]) == (first["key"], first["rows"], 2)
    now = lehrling("view", plant, "--name", "c", "--where", "parent == 'one'", "--json").data
    assert now["episodes"] == 1
    assert now["rows"] < first["rows"]


def test_snapshots_are_listed_and_never_written_over(lehrling: Command, plant: Path) -> None:
    lehrling("snapshot", plant, "v1")
    lehrling("snapshot", plant, "v2", "--where", "id == 'one'")
    assert lehrling("snapshot", plant, "v1").refused("'v1'", "already")
    assert lehrling("snapshot", plant).refused("Expected a name")
    assert lehrling("view", plant, "--snapshot", "v3").refused("no snapshot 'v3'", "v1, v2")
    listed = lehrling("snapshot", plant, "--list", "--json").data
    assert [(s["name"], s["episodes"], s["where"]) for s in listed] == [("v1", 2, ""), ("v2", 1, "id == 'one'")]
    assert "v2" in lehrling("snapshot", plant, "--list").out


def test_diff_shows_what_changed_since_a_snapshot(lehrling: Command, plant: Path) -> None:
    lehrling("snapshot", plant, "v1")
    lehrling("edit", "label", plant, "two", "--outcome", "failure")
    lehrling("edit", "trim", plant, "one", "--from", "0.2")
    seen = " ".join(lehrling("diff", plant, "v1").out.split())
    for told in ("v1 → now", "into one.t1", "outcome: success → failure"):
        assert told in seen
    facts = lehrling("diff", plant, "v1", "now", "--json").data
    assert (facts["trimmed"], facts["added"], facts["removed"]) == ({"one": ["one.t1"]}, [], {})
    assert facts["relabelled"] == {"two": {"outcome": ["success", "failure"]}}
    assert not facts["equal"]
    assert lehrling("diff", plant, "v2").refused("no snapshot 'v2'")


def test_a_card_has_a_header_for_hubs_and_what_people_ask(lehrling: Command, plant: Path) -> None:
    snapshot = lehrling("snapshot", plant, "v1", "--json").data
    assert lehrling("card", plant, "--license", "cc-by-4.0", "--title", "Plant | <b>", "--json").data == {
        "card": str(plant / "README.md")
    }
    text = (plant / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header == {
        "license": "cc-by-4.0", "pretty_name": "Plant | <b>", "task_categories": ["robotics"],
        "size_categories": ["n<1K"], "tags": ["robotics", "lehrling", "zarr", "arm6", "kitting"],
    }  # fmt: skip
    assert "# Plant \\| &lt;b>" in text
    assert "| kitting | 2 | 2 | 0 | 0 | 1.2 s |" in text
    assert "| front | observation | colour_image | 96×96×3 |" in text
    assert f"| v1 | 2 | `{snapshot['hash']}` |" in text
    lehrling("edit", "label", plant, "one", "--outcome", "failure")
    assert lehrling("card", plant).code == 0
    assert "| kitting | 2 | 1 | 1 | 0 | 1.2 s |" in (plant / "README.md").read_text()
    assert lehrling("verify", plant, "--json").data["whole"]


def test_a_card_leaves_other_files_alone(lehrling: Command, plant: Path, tmp_path: Path) -> None:
    (plant / "README.md").write_text("mine")
    assert lehrling("card", plant).refused("README.md", "--out")
    assert lehrling("card", plant, "--out", tmp_path / "card.md").code == 0
    assert (plant / "README.md").read_text() == "mine"
