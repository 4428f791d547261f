"""What holds for every test: workers of one machine share it, and no thread count outlives a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Put torch's thread count back after a test that trains with its own."""
    kept = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if kept is not None:
        sys.modules["torch"].set_num_threads(kept)
