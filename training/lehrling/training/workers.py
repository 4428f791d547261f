"""Worker processes that do not pay for importing torch and the model classes one by one."""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.context import ForkServerContext

PRELOADED = (
    "lehrling.training.trainer",
    "lehrling.sim.env",
    "accelerate",
    "peft",
    "torch.utils.tensorboard",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
)
"""What is not installed is left out."""


def worker_context() -> ForkServerContext:
    """Return a context whose processes are forked from a server that has imported what takes most of a start.

    The server starts with the first process, holds no model and no threads, and ends with this process; so its children
    are as clean as spawned ones.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context
