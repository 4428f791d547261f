"""Which policies may act on one robot in turn."""

from __future__ import annotations

from typing import Any

import pytest
from driven_policies import VIEW, hello, recipe

from lehrling.datasets.errors import InputError
from lehrling.deploy.policy_drive import first_facts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rate_hz": 2.0}, "rate"),
        ({"image_latency_ms": 80.0}, "image latency"),
        ({"image_max_age_ms": 50.0}, "oldest image"),
        ({"observation_max_age_ms": None}, "oldest state"),
    ],
)
def test_policies_whose_change_the_observer_would_have_to_follow_are_refused(
    changes: dict[str, Any], says: str
) -> None:
    told = hello()
    told["adapters"]["right"]["view"] = VIEW.model_copy(update=changes).canonical_json
    with pytest.raises(InputError, match=f"'left' and 'right' differ in their {says}"):
        first_facts(told, {1: recipe(), 2: recipe(2, "right")})


def test_policies_may_differ_in_what_the_server_does_for_them() -> None:
    told = hello()
    told["adapters"]["right"]["view"] = VIEW.model_copy(update={"fit": "pad", "image_px": 64}).canonical_json
    assert first_facts(told, {1: recipe(), 2: recipe(2, "right")}).name == "left"
