"""The artefact of a run: a PEFT directory, slots and head as safetensors, and a JSON that says what it all means."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DocumentError, InputError
from lehrling.datasets.files import sha256_file, write_durably
from lehrling.datasets.representation import ActionCodec, RelativePart
from lehrling.training.images import PixelSpec
from lehrling.training.lora import load_adapter, save_adapter
from lehrling.training.models import Base
from lehrling.training.normalise import Normaliser, NormaliserFacts
from lehrling.training.policy_model import PolicyModel
from lehrling.training.prompt import Order, Prompt
from lehrling.training.tensors import load_module, read_tensors, under, writing

SCHEMA = 1
DESCRIPTION, HEAD = "policy.json", "policy_head.safetensors"
DESCRIPTION_BYTES_MAX = 64 << 20


class BaseFacts(TypedDict):
    """Which base: source as given, revision of a hub id, hashes of its files."""

    source: str
    revision: str | None
    model_type: str
    weights_sha256: str
    files: dict[str, str]


class PromptFacts(TypedDict):
    """The prompt's settings."""

    order: Order
    instruction_tokens_max: Annotated[int, Field(ge=4, le=1024)]


class HeadFacts(TypedDict):
    """The head: its kind and inner width."""

    kind: Literal["regression"]
    hidden: Annotated[int, Field(ge=8, le=8192)]


class RelativeFacts(TypedDict):
    """Action columns and the state columns that they are relative to."""

    kind: Literal["chunk_relative", "end_effector"]
    action: list[int]
    state: list[int]


@dataclass(frozen=True)
class Description:
    """policy.json: what is needed to run the policy, and where it comes from.

    Attributes:
        base: source, revision, model_type, hashes of its files.
        view: the whole view specification; `contract` the robot's.
        relative: which action columns are relative to which state columns, empty where all are absolute.
        provenance: data hashes, seeds, cost, versions.
    """

    base: BaseFacts
    view: dict[str, Any]
    contract: dict[str, Any]
    cameras: Annotated[list[str], Field(max_length=64)]
    image_px: Annotated[int, Field(ge=8, le=4096)]
    rate_hz: Annotated[float, Field(gt=0, le=1000)]
    chunk: Annotated[int, Field(ge=1, le=256)]
    prompt: PromptFacts
    state_names: list[str]
    action_names: Annotated[list[str], Field(min_length=1)]
    state: NormaliserFacts
    action: NormaliserFacts
    head: HeadFacts
    relative: list[RelativeFacts] = field(default_factory=list)
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


def describe_base(base: Base) -> BaseFacts:
    """Return a base's identity for policy.json."""
    return {
        "source": str(Path(base.source).resolve()) if Path(base.source).is_dir() else base.source,
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
    with writing(directory):
        save_adapter(model.backbone, directory, base=description.base["source"], revision=description.base["revision"])
        save_file(_trained(model), directory / HEAD)
    write_durably(directory / "README.md", model_card(description).encode())
    write_durably(directory / "sbom.json", (json.dumps(bill_of_materials(), indent=1) + "\n").encode())
    write_durably(directory / DESCRIPTION, (json.dumps(asdict(description), indent=1) + "\n").encode())


def artefact_hash(directory: Path) -> str:
    """Return the sha256 over what makes a policy act: its description and its weights, each by its own hash."""
    found = {path.name: path for path in directory.glob("*.safetensors")} | {DESCRIPTION: directory / DESCRIPTION}
    lines = [f"{sha256_file(found[name])}  {name}\n" for name in sorted(found)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_description(directory: Path) -> Description:
    """Read policy.json.

    Raises:
        InputError: no policy there, or one of another schema, or malformed; the message names the key.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        raise InputError(f"Expected a policy (a directory with {DESCRIPTION}) at {directory}, but there is none.")
    try:
        data = read_json(path, "policy description", bytes_max=DESCRIPTION_BYTES_MAX)
    except DocumentError as error:
        raise InputError(f"{directory} holds no policy description: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is no policy description: expected an object, got {type(data).__name__}.")
    if data.get("schema") != SCHEMA:
        raise InputError(
            f"Expected schema {SCHEMA} in {path}, got {data.get('schema')!r}; use the version that wrote it."
        )
    lacking = [f.name for f in fields(Description) if f.name not in data and f.default is f.default_factory is MISSING]
    if lacking:
        raise InputError(f"{path} is no policy description: it lacks {', '.join(lacking)}.")
    try:
        return _consistent(TypeAdapter(Description).validate_python(data))
    except (ValueError, InputError) as error:
        raise InputError(f"{path} is no policy description: {_first(error)}.") from error


def _consistent(description: Description) -> Description:
    """Return the description if its parts fit each other.

    Raises:
        ValueError: a normaliser or a relative part does not fit the names.
        InputError: a relative part does not fit itself.
    """
    widths = {"state": len(description.state_names), "action": len(description.action_names)}
    for group, facts in (("state", description.state), ("action", description.action)):
        if not len(facts["offset"]) == len(facts["scale"]) == widths[group]:
            raise ValueError(f"{group} has {widths[group]} names, but a normaliser of another length")
    for part in description.relative:
        for group, columns in (("state", part["state"]), ("action", part["action"])):
            if not all(0 <= column < widths[group] for column in columns):
                raise ValueError(f"relative names {group} columns beyond its {widths[group]}")
    _ = description.codec
    return description


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error).rstrip(".")
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {reprlib.repr(first['input'])}"


def check_base(description: Description, base: Base) -> None:
    """Refuse an adapter on another base than it was trained on; what older policies do not say of it is not asked.

    Raises:
        InputError: saying which base was expected and which came.
    """
    wanted = description.base
    if wanted["weights_sha256"] != base.weights_hash:
        raise InputError(
            f"The adapter was trained on {wanted['source']} (weights {wanted['weights_sha256'][:12]}), but "
            f"{base.source} has weights {base.weights_hash[:12]}; load it onto the base that it belongs to."
        )
    for name, hashed in wanted["files"].items():
        if (found := base.hashes.get(name, "none")) != hashed:
            raise InputError(
                f"The adapter was trained on {wanted['source']} with another {name} ({hashed[:12]}) than lies in "
                f"{base.directory} ({found[:12]}); restore the base's files."
            )


def restore(
    directory: Path,
    backbone: Any,
    tokenizer: Any,
    description: Description,
    pixels: PixelSpec,
    adapter: str = "default",
) -> PolicyModel:
    """Put slots, head and adapters back onto a backbone, for inference; `adapter` is its name on it.

    Raises:
        InputError: a file is missing, broken, or does not fit; the message names it.
    """
    prompt = description.make_prompt(pixels.tokens(description.image_px))
    sizes = len(description.state_names), len(description.action_names)
    model = PolicyModel(backbone, tokenizer, prompt, *sizes, pixels=pixels, head_hidden=description.head["hidden"])
    trained = read_tensors(directory / HEAD)
    for name, module in (("slots", model.slots), ("head", model.head)):
        load_module(module, under(f"{name}.", trained), f"{name} in {directory / HEAD}")
    model.backbone = load_adapter(backbone, directory, adapter)
    return model


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


@cache
def bill_of_materials() -> dict[str, Any]:
    """Return a CycloneDX 1.6 bill of the installed Python packages."""
    found = {(d.metadata["Name"], d.version) for d in metadata.distributions() if d.metadata["Name"]}
    components = [
        {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}"}
        for name, version in sorted(found)
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
