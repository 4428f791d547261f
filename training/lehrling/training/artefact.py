"""The artefact of a run: a PEFT directory, slots and head as safetensors, and a JSON that says what it all means."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.datasets.representation import ActionCodec, RelativePart
from lehrling.training.config import LoraSettings
from lehrling.training.lora import load_adapter
from lehrling.training.models import Base
from lehrling.training.normalise import Normaliser
from lehrling.training.policy_model import PolicyModel
from lehrling.training.prompt import Prompt

SCHEMA = 1
DESCRIPTION, HEAD = "policy.json", "policy_head.safetensors"
DESCRIPTION_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class Description:
    """policy.json: what is needed to run the policy, and where it comes from.

    Attributes:
        base: source, revision, model_type, hashes of its files.
        view: the whole view specification; `contract` the robot's.
        relative: which action columns are relative to which state columns, empty where all are absolute.
        provenance: data hashes, seeds, cost, versions.
    """

    base: dict[str, Any]
    view: dict[str, Any]
    contract: dict[str, Any]
    cameras: list[str]
    image_px: int
    rate_hz: float
    chunk: int
    prompt: dict[str, Any]
    state_names: list[str]
    action_names: list[str]
    state: dict[str, list[float]]
    action: dict[str, list[float]]
    head: dict[str, Any]
    relative: list[dict[str, Any]] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def normalisers(self) -> tuple[Normaliser, Normaliser]:
        """The state's and the action's normaliser."""
        return Normaliser.from_json(self.state), Normaliser.from_json(self.action)

    @property
    def codec(self) -> ActionCodec:
        """What turns predicted chunks into absolute ones."""
        return ActionCodec(tuple(RelativePart(p["kind"], tuple(p["action"]), tuple(p["state"])) for p in self.relative))

    def make_prompt(self, tokens_per_image: int) -> Prompt:
        """Return the prompt that the policy was trained with."""
        return Prompt(tuple(self.cameras), tokens_per_image, self.chunk, **self.prompt)


def describe_base(base: Base) -> dict[str, Any]:
    """Return a base's identity for policy.json."""
    return {
        "source": base.source if not Path(base.source).is_dir() else str(Path(base.source)),
        "revision": base.revision,
        "model_type": base.model_type,
        "weights_sha256": base.weights_hash,
        "files": base.hashes,
    }


def _trained(model: PolicyModel) -> dict[str, Tensor]:
    parts = {"slots": model.slots, "head": model.head}
    return {f"{p}.{k}": v.detach().contiguous() for p, m in parts.items() for k, v in m.state_dict().items()}


def save_artefact(directory: Path, model: PolicyModel, description: Description) -> None:
    """Write the artefact into `directory`; a half-written one lacks policy.json, which is written last."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / DESCRIPTION).unlink(missing_ok=True)
    model.backbone.save_pretrained(directory, safe_serialization=True)
    save_file(_trained(model), directory / HEAD)
    (directory / "README.md").write_text(model_card(description), encoding="utf-8")
    (directory / "sbom.json").write_text(json.dumps(bill_of_materials(), indent=1) + "\n", encoding="utf-8")
    partial = directory / f"{DESCRIPTION}.tmp"
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(description), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / DESCRIPTION)


def read_description(directory: Path) -> Description:
    """Read policy.json.

    Raises:
        InputError: no policy there, or of another schema.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        raise InputError(f"Expected a policy (a directory with {DESCRIPTION}) at {directory}, but there is none.")
    if path.stat().st_size > DESCRIPTION_BYTES_MAX:
        raise InputError(f"{path} is larger than {DESCRIPTION_BYTES_MAX} bytes; that is no policy description.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(
                f"Expected schema {SCHEMA} in {path}, got {data['schema']}; use the version that wrote it."
            )
        return Description(**data)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no policy description: {error}.") from error


def check_base(description: Description, base: Base) -> None:
    """Refuse an adapter on another base than it was trained on.

    Raises:
        InputError: saying which base was expected and which came.
    """
    wanted = description.base
    if wanted["weights_sha256"] != base.weights_hash:
        raise InputError(
            f"The adapter was trained on {wanted['source']} (weights {wanted['weights_sha256'][:12]}), but "
            f"{base.source} has weights {base.weights_hash[:12]}; load it onto the base that it belongs to."
        )


def restore(directory: Path, backbone: Any, tokenizer: Any, description: Description, **options: Any) -> PolicyModel:
    """Put slots, head and adapters back onto a backbone."""
    from lehrling.training.policy_model import pixel_spec

    pixels = options.pop("pixels", None) or pixel_spec(backbone.config)
    prompt = description.make_prompt(pixels.tokens(description.image_px))
    sizes = len(description.state_names), len(description.action_names)
    hidden = int(description.head["hidden"])
    model = PolicyModel(backbone, tokenizer, prompt, *sizes, pixels=pixels, head_hidden=hidden)
    trained = load_file(directory / HEAD)
    for name, module in (("slots", model.slots), ("head", model.head)):
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in trained.items() if k.startswith(prefix)})
    model.backbone = load_adapter(backbone, str(directory), **options)
    return model


def lora_facts(settings: LoraSettings) -> dict[str, Any]:
    """Return the adapter's settings for reports."""
    return settings.model_dump(mode="json")


def model_card(description: Description) -> str:
    """Return the model card (README.md)."""
    base, cost = description.base, description.provenance.get("cost", {})
    front = ["---", f"base_model: {base['source']}", "library_name: peft", "tags: [robotics, lora, lehrling]", "---"]
    lines = [
        "# Robot policy",
        f"LoRA adapter and action head on `{base['source']}` ({base['model_type']}).",
        f"- Weights of the base: sha256 `{base['weights_sha256']}`",
        f"- Trained by Lehrling {metadata.version('lehrling-training')}",
        f"- Cameras: {', '.join(description.cameras)} at {description.image_px} px",
        f"- State: {', '.join(description.state_names)}",
        f"- Actions: {', '.join(description.action_names)}, {description.chunk} steps at {description.rate_hz:g} Hz",
        f"- Episodes: {len(description.provenance.get('episodes', []))}; steps: {cost.get('steps', '?')}",
        "- Not a safety function: run it behind limits that do not depend on it.",
    ]
    return "\n".join(front) + "\n\n" + "\n".join(lines) + "\n"


def bill_of_materials() -> dict[str, Any]:
    """Return a CycloneDX 1.6 bill of the installed Python packages."""
    found = {(d.metadata["Name"], d.version) for d in metadata.distributions() if d.metadata["Name"]}
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}"}
        for name, version in sorted(found)
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
