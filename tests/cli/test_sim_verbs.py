"""sim tasks, sim generate: what they say, what they return, what they refuse."""

from __future__ import annotations

from pathlib import Path

from cli_runs import Command, script

from lehrling.datasets.dataset import Dataset


def test_tasks_and_robots_are_listed(lehrling: Command) -> None:
    facts = lehrling("sim", "tasks", "--json").data
    assert {"kitting", "sorting"} <= set(facts["tasks"])
    assert {"arm6", "iiwa", "upper_humanoid"} <= set(facts["robots"])
    assert facts["robots_of_task"]["bimanual_lift"] == ["upper_humanoid"]
    assert "upper_humanoid" not in facts["robots_of_task"]["kitting"]
    table = lehrling("sim", "tasks").out
    assert [name for name in facts["tasks"] if name not in table] == []


def test_generate_adds_only_what_is_missing(lehrling: Command, cell: Path) -> None:
    command = ("sim", "generate", cell, "--task", "kitting", "--episodes", 4, "--json")
    kept = [f"kitting-arm6-{k:08d}" for k in range(3)]
    made = ["kitting-arm6-00000003"]
    facts = {"dataset": str(cell), "made": made, "kept": kept, "gone": {}, "successes": 1}
    assert lehrling(*command).data == facts
    manifest = (cell / "manifest.jsonl").read_bytes()
    again = lehrling(*command).data
    assert (again["made"], again["kept"], again["successes"]) == ([], [*kept, *made], 0)
    assert (cell / "manifest.jsonl").read_bytes() == manifest


def test_the_installed_script_generates_the_same_episode_and_prints_json_alone(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.zarr"
    seen = script("sim", "generate", path, "--task", "kitting", "--episodes", 1, "--seed", 2, "--json")
    assert (seen.code, seen.data["made"]) == (0, ["kitting-arm6-00000002"])
    first, again = (Dataset.open(p).records["kitting-arm6-00000002"] for p in (made / "cell.zarr", path))
    assert first.content_hash == again.content_hash


def test_seeds_that_are_gone_are_named_and_not_made_again(lehrling: Command, cell: Path) -> None:
    names = [f"kitting-arm6-{k:08d}" for k in range(3)]
    next((cell / "episodes" / names[0]).rglob("c/0/0")).unlink()
    assert lehrling("repair", cell).code == 3
    assert lehrling("edit", "delete", cell, names[1]).code == 0
    assert lehrling("edit", "purge", cell, names[2], "--yes").code == 0
    command = ("sim", "generate", cell, "--task", "kitting", "--episodes", 3)
    seen = lehrling(*command, "--json")
    assert (seen.code, seen.data["made"], seen.data["kept"]) == (3, [], [])
    assert seen.data["gone"] == dict(zip(names, ("quarantined", "deleted", "purged"), strict=True))
    told = lehrling(*command).err
    assert f"{names[0]} is quarantined" in told
    assert "--seed" in told
    assert lehrling("edit", "restore", cell, names[1]).code == 0
    assert lehrling(*command, "--json").data["kept"] == [names[1]]


def test_a_seed_whose_episode_was_cut_is_kept(lehrling: Command, cell: Path) -> None:
    assert lehrling("edit", "trim", cell, "kitting-arm6-00000001", "--from", 0.5).code == 0
    seen = lehrling("sim", "generate", cell, "--task", "kitting", "--episodes", 3, "--json")
    assert (seen.code, seen.data["made"], len(seen.data["kept"])) == (0, [], 3)


def test_a_seed_that_is_there_at_another_size_is_refused(lehrling: Command, cell: Path) -> None:
    command = ("sim", "generate", cell, "--task", "kitting", "--episodes", 4, "--size", 64)
    assert lehrling(*command).refused("kitting-arm6-00000000", "64 px", "--size")
    assert len(Dataset.open(cell).records) == 3


def test_unknown_tasks_and_robots_are_refused_before_anything_is_made(lehrling: Command, tmp_path: Path) -> None:
    path = tmp_path / "d.zarr"
    assert lehrling("sim", "generate", path, "--task", "juggling").refused("juggling", "choose one of", "kitting")
    command = ("sim", "generate", path, "--task", "kitting", "--robot")
    assert lehrling(*command, "r2d2").refused("r2d2", "choose one of", "arm6")
    assert lehrling(*command, "upper_humanoid").refused("upper_humanoid", "kitting", "it can do bimanual_lift")
    assert not path.exists()


def test_a_folder_of_other_things_is_not_made_a_dataset(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun", encoding="utf-8")
    assert lehrling("sim", "generate", tmp_path, "--task", "kitting").refused(str(tmp_path), "no Lehrling dataset")
    assert lehrling("sim", "generate", tmp_path / "holiday.txt", "--task", "kitting").refused("holiday.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_generate_is_refused_while_another_writes(lehrling: Command, cell: Path) -> None:
    with Dataset.open_for_writing(cell):
        seen = lehrling("sim", "generate", cell, "--task", "kitting", "--episodes", 4)
    assert seen.refused("being written by process", "wait for it to end")
    assert len(Dataset.open(cell).records) == 3
