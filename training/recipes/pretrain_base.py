"""Pre-train the small base that the demo's LoRA starts from: perception on simulator labels, and cloning of other tasks.

Real users start from a published checkpoint; no checkpoint is at hand here, so this makes one of the same class. Labels
are dense, because sparse ones do not teach a random model to look: which colours each visual token shows (vision tower),
which tokens show the named part and place (language model, possible because the instruction comes first), where they are
(state slot), and the expert's actions (action slots) on every task but the one that the demo will be tuned on.

Usage: python training/recipes/pretrain_base.py OUT SHARD [SHARD ...] --steps 5500
       python training/recipes/pretrain_base.py OUT2 SHARD [SHARD ...] --start OUT --steps 2000 --rate 5e-4
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lehrling.sim.tasks import TASKS
from lehrling.sim.tasks.base import COLOURS
from lehrling.sim.world import WORKSPACE_HIGH, WORKSPACE_LOW
from lehrling.training.heads import masked_l1
from lehrling.training.models import load_backbone
from lehrling.training.normalise import Normaliser
from lehrling.training.policy_model import PolicyModel, pixel_spec, text_width
from lehrling.training.prompt import Prompt
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer
from lehrling.training.warm_start import FACTS, WarmStart, policy_tensors

HELD_OUT_TASK = "kitting"
SIZE = Size(160, 4, 4, 448, 144, 4, 4, 432, patch=16, merge=1, image_px=96)
STATE = Normaliser((0.0, 0.4, 1.6, 0.0, 1.1, 0.0, 0.05), (0.6, 0.5, 0.5, 0.1, 0.5, 0.6, 0.05))
ACTION = Normaliser.from_bounds(np.append(WORKSPACE_LOW, -1), np.append(WORKSPACE_HIGH, 1))
WHERE = Normaliser((0.35, 0, 0.05, 0.5, 0, 0.4, 0, 0.15), (0.08, 0.12, 0.05, 0.06, 0.13, 0.1, 0.13, 0.08))
HELD_OUT_ROWS = 1500
SHOWN = 0.1
"""A token shows a thing when it covers at least this share of it."""


class Probes(nn.Module):
    """Linear readouts used in pre-training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.colour = nn.Linear(width, len(COLOURS))
        self.named = nn.Linear(width, 2)
        self.where = nn.Linear(width, len(WHERE.offset))


@dataclass(frozen=True)
class Frames:
    """All shards' rows; images stay on disk."""

    arrays: dict[str, list[NDArray[Any]]]
    texts: list[list[str]]
    starts: NDArray[Any]

    @classmethod
    def open(cls, shards: list[Path]) -> Frames:
        """Memory-map the images, read the rest."""
        keys = ("image", "token_part", "token_place", "token_colour", "state", "where", "chunk", "task", "text")
        arrays = {k: [np.load(s / f"{k}.npy", mmap_mode="r" if k == "image" else None) for s in shards] for k in keys}
        lengths = [len(a) for a in arrays["state"]]
        texts = [(s / "texts.txt").read_text(encoding="utf-8").split("\n") for s in shards]
        return cls(arrays, texts, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batch(self, rows: NDArray[Any]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the rows as tensors, and their instructions."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        pairs = list(zip(shard.tolist(), (rows - self.starts[shard]).tolist(), strict=True))
        out = {k: torch.from_numpy(np.stack([v[s][i] for s, i in pairs])) for k, v in self.arrays.items()}
        return out, [self.texts[s][int(self.arrays["text"][s][i])] for s, i in pairs]


def losses(model: PolicyModel, probes: Probes, batch: dict[str, Tensor], texts: list[str]) -> dict[str, Tensor]:
    """Return each loss term, and readable errors prefixed with `_`."""
    state = torch.from_numpy(STATE.forward(batch["state"].numpy()))
    with torch.autocast("cpu", torch.bfloat16):
        features = model.encode_images(batch["image"])
        hidden = model.hidden(features, texts, state)
    states = hidden.states.float()
    colour = probes.colour(features.tokens.float())
    named = probes.named(states[:, hidden.visual.flatten()]).unflatten(1, hidden.visual.shape)
    where = probes.where(states[:, -model.prompt.slots])
    predicted = model.act_on(hidden)
    wanted = torch.from_numpy(ACTION.forward(batch["chunk"].numpy()))
    cloned = batch["task"] != sorted(TASKS).index(HELD_OUT_TASK)
    mask = cloned[:, None].expand(-1, wanted.shape[1])
    places = torch.from_numpy(WHERE.forward(batch["where"].numpy()))
    binary = functional.binary_cross_entropy_with_logits
    error = ((where - places).abs() * torch.tensor(WHERE.scale)).mean(0) * 100
    reach = ((predicted - wanted)[cloned].abs() * torch.tensor(ACTION.scale))[..., :3].mean() * 100
    grip = (predicted[cloned][..., 3].sign() == wanted[cloned][..., 3].sign()).float().mean()
    return {
        "colour": 3 * binary(colour, (batch["token_colour"] > SHOWN).float()),
        "part": 5 * binary(named[..., 0], (batch["token_part"] > SHOWN).float()),
        "place": 3 * binary(named[..., 1], batch["token_place"].float()),
        "where": functional.smooth_l1_loss(where, places, beta=0.3),
        "action": 2 * masked_l1(predicted, wanted, mask),
        "_part_cm": error[:2].mean(),
        "_place_cm": error[3:5].mean(),
        "_tcp_cm": error[5:].mean(),
        "_action_cm": reach,
        "_grip": grip,
    }


def save(out: Path, model: PolicyModel, facts: dict[str, object]) -> None:
    """Write the checkpoint: one fp16 safetensors file with backbone, slots and head, configuration, tokenizer, facts."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    model.backbone.config.dtype = "float16"
    model.backbone.config.save_pretrained(out)
    model.tokenizer.save_pretrained(out)
    tensors = {k: v for k, v in model.backbone.state_dict().items() if k != "lm_head.weight"}
    tensors |= {f"policy.slots.{k}": v for k, v in model.slots.state_dict().items()}
    tensors |= {f"policy.head.{k}": v for k, v in model.head.state_dict().items()}
    half = {k: v.detach().to(torch.float16).contiguous() for k, v in tensors.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
    start = {
        "cameras": list(model.prompt.cameras),
        "chunk": model.prompt.chunk,
        "order": model.prompt.order,
        "image_px": SIZE.image_px,
        "state_names": [f"joint_position.{name}" for name in (*(f"joint{i}" for i in range(1, 7)), "gripper")],
        "action_names": ["tcp_command.x", "tcp_command.y", "tcp_command.z", "gripper_command.gripper"],
        "state": STATE.to_json(),
        "action": ACTION.to_json(),
    }
    (out / "policy_start.json").write_text(json.dumps(start | facts, indent=1) + "\n", encoding="utf-8")


def new_model(start: Path | None) -> tuple[PolicyModel, list[dict[str, Any]]]:
    """Return the policy, random or as an earlier stage left it, and the facts of the earlier stages."""
    stages: list[dict[str, Any]] = []
    if start is None:
        tokenizer = make_tokenizer()
        backbone: Any = tiny_backbone("qwen3_vl", tokenizer, SIZE)
    else:
        backbone, tokenizer, _ = load_backbone(str(start))
        stages = json.loads((start / FACTS).read_text(encoding="utf-8"))["recipe"]["stages"]
    tokens = pixel_spec(backbone.config).tokens(SIZE.image_px)
    model = PolicyModel(backbone, tokenizer, Prompt(("front", "wrist"), tokens, 8), 7, 4)
    if start is not None:
        WarmStart(policy_tensors(start / "model.safetensors"), STATE, ACTION).load_into(model)
    return model.train(), stages


def evaluated(model: PolicyModel, probes: Probes, frames: Frames) -> dict[str, float]:
    """Return the mean of every term over the held-out rows."""
    with torch.no_grad():
        tests = [frames.batch(np.arange(len(frames) - HELD_OUT_ROWS + k, len(frames), 15)) for k in range(3)]
        scores = [losses(model, probes, *test) for test in tests]
    return {k: float(torch.stack([s[k] for s in scores]).mean()) for k in scores[0]}


def report(step: int, seconds: float, means: dict[str, float], what: str = "") -> None:
    """Print one line."""
    shown = " ".join(f"{key.lstrip('_')} {value:.4f}" for key, value in means.items())
    print(f"{step} {seconds / 60:.1f}m {what} {shown}", flush=True)  # noqa: T201


def main() -> None:
    """Train for the given steps on a cosine learning rate, and save every 500."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--start", type=Path, help="checkpoint of an earlier stage")
    parser.add_argument("--steps", type=int, default=5500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    frames, rng = Frames.open(args.shards), np.random.default_rng(args.seed)
    model, stages = new_model(args.start)
    probes = Probes(text_width(model.backbone))
    parameters = [*model.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=0.01, betas=(0.9, 0.98))
    begun, sums = time.monotonic(), dict[str, float]()
    for step in range(1, args.steps + 1):
        decay = max(0.02, 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, step / 200) * decay
        batch, texts = frames.batch(rng.integers(0, len(frames) - HELD_OUT_ROWS, args.batch))
        terms = losses(model, probes, batch, texts)
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach()) / 100
        if step % 100 == 0:
            report(step, time.monotonic() - begun, sums)
            sums = {}
        if step % 500 == 0 or step == args.steps:
            means = evaluated(model, probes, frames)
            report(step, time.monotonic() - begun, means, "held out")
            minutes = round((time.monotonic() - begun) / 60, 1)
            stage = {"steps": step, "of": args.steps, "batch": args.batch, "rate": args.rate, "seed": args.seed,
                     "minutes": minutes, "frames": len(frames), "held_out": means}  # fmt: skip
            save(args.out, model, {"recipe": {"held_out_task": HELD_OUT_TASK, "stages": [*stages, stage]}})


if __name__ == "__main__":
    main()
