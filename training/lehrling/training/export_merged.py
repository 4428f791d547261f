"""Merged weights: the adapters added into the backbone, which becomes a plain folder of transformers.

`OUT/model` is what `AutoModelForImageTextToText.from_pretrained` opens, as other tools' merges are. `OUT` itself is a policy
on that base, with its head and slots. Whatever opens policies expects adapters beside them, so a rank-1 adapter on one
layer stands there whose product is exactly zero.
"""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from lehrling.datasets.files import sha256_file
from lehrling.training.artefact import DESCRIPTION, describe_base, save_artefact
from lehrling.training.export import (
    SAMPLES,
    Trained,
    actions_of,
    agreed,
    new_folder,
    open_trained,
    random_inputs,
    write_facts,
)
from lehrling.training.export_facts import MODEL
from lehrling.training.lora import TARGETS, linear_modules
from lehrling.training.models import check
from lehrling.training.tensors import writing

TOLERANCE = 1e-4
KEPT = ("preprocessor_config.json", "processor_config.json", "chat_template.json", "chat_template.jinja", "LICENSE*")
"""Files of the base that a merged one needs or must carry."""


def export_merged(
    policy: Path, out: Path, *, base: str | None = None, tolerance: float = TOLERANCE, seed: int = 0
) -> dict[str, Any]:
    """Merge a policy's adapters into its base; read back, the result must act as the policy does. Return export.json.

    Raises:
        InputError: there is no policy, it does not load, or `out` is there.
        DamageError: the result acts differently.
        StorageError: the disk is full or failed.
    """
    trained = open_trained(policy, base)
    inputs = random_inputs(trained.description, SAMPLES, seed)
    wanted = actions_of(trained.model, inputs)
    with new_folder(out) as folder:
        _save_base(trained, folder / MODEL)
        merged = check(str(folder / MODEL), fetch=False)
        origin = {"base": trained.description.base, "policy_sha256": sha256_file(policy / DESCRIPTION)}
        facts = describe_base(merged) | {"source": str((out / MODEL).absolute())}
        description = replace(
            trained.description,
            base=facts,
            provenance=trained.description.provenance | {"merged_from": origin},
        )
        trained.model.backbone = _nothing_added(trained.model.backbone)
        save_artefact(folder, trained.model, description)
        del trained
        found = actions_of(open_trained(folder, str(folder / MODEL)).model, inputs)
        agreement = agreed(wanted, found, tolerance, seed, "merged policy")
        return write_facts(folder, "merged", policy, {"merged_from": origin, "agreement": agreement.to_json()})


def _save_base(trained: Trained, folder: Path) -> None:
    """Merge, and write what `from_pretrained` opens, fp32 as the policy acts."""
    model = trained.model
    model.backbone = model.backbone.merge_and_unload(safe_merge=True)
    with writing(folder):
        model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    for pattern in KEPT:
        for path in trained.base.directory.glob(pattern):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)


def _nothing_added(backbone: Any) -> Any:
    """Attach an adapter to one layer; PEFT begins with B = 0, so that A's product adds zero."""
    from peft import LoraConfig, get_peft_model

    first = min(name for name in linear_modules(backbone) if re.fullmatch(TARGETS, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(backbone, LoraConfig(r=1, lora_alpha=1, target_modules=re.escape(first), bias="none"))
