"""What is asked of publishers: the most by which each is heard; what is not heard is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.datasets.embodiment import Source
from lehrling.datasets.errors import InputError
from lehrling.deploy.ros_qos import (
    DEPTH_MAX,
    DEPTH_MIN,
    Offer,
    Request,
    check_override,
    depth_for,
    mismatch,
    request_for,
)

OFFERS = st.lists(
    st.builds(Offer, st.sampled_from(["reliable", "best_effort"]), st.sampled_from(["volatile", "transient_local"]))
)
RELIABLE, BEST_EFFORT = Offer("reliable", "volatile"), Offer("best_effort", "volatile")
LATCHED = Offer("reliable", "transient_local")


def source(rate_hz: float | None = None, **qos: str | int) -> Source:
    return Source(topic="/data", type="std_msgs/msg/String", rate_hz=rate_hz, qos=qos)


@given(OFFERS)
def test_without_words_of_the_embodiment_every_publisher_is_heard(offers: list[Offer]) -> None:
    request = request_for(offers, source())
    assert all(request.heard(offer) for offer in offers)
    assert "not heard" not in mismatch(request, offers, "/data")


@given(OFFERS)
def test_the_request_is_the_strongest_that_hears_all(offers: list[Offer]) -> None:
    request = request_for(offers, source())
    if offers and request.reliability == "best_effort":
        assert not all(Request("reliable", request.durability, 1).heard(offer) for offer in offers)
    if offers and request.durability == "volatile":
        assert not all(Request(request.reliability, "transient_local", 1).heard(offer) for offer in offers)


@pytest.mark.parametrize(
    ("request_", "offer", "heard"),
    [
        (Request("reliable", "volatile", 1), RELIABLE, True),
        (Request("reliable", "volatile", 1), BEST_EFFORT, False),
        (Request("best_effort", "volatile", 1), RELIABLE, True),
        (Request("reliable", "transient_local", 1), RELIABLE, False),
        (Request("reliable", "transient_local", 1), LATCHED, True),
        (Request("best_effort", "volatile", 1), LATCHED, True),
    ],
)
def test_who_hears_whom_is_what_the_middleware_says(request_: Request, offer: Offer, heard: bool) -> None:
    assert request_.heard(offer) is heard


def test_the_embodiments_own_words_go_first_and_who_is_not_heard_is_said() -> None:
    request = request_for([BEST_EFFORT, RELIABLE], source(reliability="reliable", depth=7))
    assert request == Request("reliable", "volatile", 7)
    text = mismatch(request, [BEST_EFFORT, RELIABLE], "/data")
    assert text.startswith(
        "/data: 1 of 2 publishers are not heard: they offer best_effort, volatile, the embodiment's qos asks"
    )


def test_what_is_heard_less_well_than_it_could_be_is_said() -> None:
    mixed = [BEST_EFFORT, RELIABLE]
    assert "as best effort" in mismatch(request_for(mixed, source()), mixed, "/data")
    latched = [LATCHED, RELIABLE]
    assert "some publishers are transient local and some volatile" in mismatch(
        request_for(latched, source()), latched, "/data"
    )
    for alike in ([], [RELIABLE, RELIABLE], [LATCHED]):
        assert mismatch(request_for(alike, source()), alike, "/data") == ""


@given(st.one_of(st.none(), st.floats(0.001, 20_000)))
def test_the_depth_holds_a_second_and_is_bounded(rate_hz: float | None) -> None:
    depth = depth_for(rate_hz)
    assert DEPTH_MIN <= depth <= DEPTH_MAX
    assert depth >= min(rate_hz or 0, DEPTH_MAX)


@pytest.mark.parametrize(
    ("qos", "words"),
    [
        ({"history": "keep_all"}, "'history' is no key of qos; expected reliability, durability, depth"),
        ({"reliability": "sometimes"}, "qos reliability must be reliable or best_effort, got 'sometimes'"),
        ({"durability": 3}, "qos durability must be volatile or transient_local, got 3"),
        ({"depth": "ten"}, "depth must be a number from 1 to 20000, got 'ten'"),
        ({"depth": 0}, "depth must be a number from 1 to 20000, got 0"),
        ({"depth": DEPTH_MAX + 1}, "depth must be a number"),
    ],
)
def test_qos_that_is_not_understood_is_refused_by_name(qos: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_override(qos, "/data")


def test_qos_that_is_understood_passes() -> None:
    check_override({"reliability": "best_effort", "durability": "transient_local", "depth": 5}, "/data")
