"""Any policy that can be evaluated: ours, an export of one, or a baseline of LeRobot's, by what lies in its directory."""

from __future__ import annotations

from pathlib import Path

from lehrling.datasets.errors import InputError
from lehrling.training.artefact import read_description
from lehrling.training.baseline_facts import baseline_folder, read_facts
from lehrling.training.export_facts import own_base, read_export
from lehrling.training.protocol import Policy


def open_policy(directory: Path, *, device: str = "cpu") -> Policy:
    """Load a policy; an ONNX export acts through onnxruntime, on the processor whatever the device.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    if baseline_folder(directory) is not None:
        from lehrling.training.baseline_policy import load_baseline

        return load_baseline(directory, device=device)
    if read_export(directory).get("kind") == "onnx":
        from lehrling.training.export_policy import load_onnx

        return load_onnx(directory)
    from lehrling.training.policy import load_policy

    return load_policy(directory, base=own_base(directory), device=device)


def demonstrations_of(directory: Path) -> list[str]:
    """Return the ids of the episodes that a policy was trained on.

    Raises:
        InputError: there is no policy, or it cannot be read.
    """
    folder = baseline_folder(directory)
    if folder is not None:
        return [episode.id for episode in read_facts(folder).episodes]
    try:
        return [str(episode["id"]) for episode in read_description(directory).provenance.get("episodes", [])]
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{directory} does not say which episodes it was trained on: expected a list of objects with an id under "
            "provenance.episodes of policy.json; take the policy from its run again."
        ) from error
