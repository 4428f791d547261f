"""What a client may ask of the policy server: one observation, checked against the policy that is to act on it."""

from __future__ import annotations

import math
import reprlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.resize import decode, view_image, view_jpeg
from lehrling.datasets.view_spec import ViewSpec
from lehrling.training.protocol import Observation, PolicySpec

PREFIX, STATE, PROMPT = "observation/", "observation/state", "prompt"
OPTIONS = ("adapter", "contract", "obs_stamp", "step", "prev_chunk_tail", "inference_delay", "executed")
PROMPT_CHARACTERS_MAX = 2000


class RequestError(InputError):
    """A request that cannot be answered; the client's mistake."""


@dataclass(frozen=True)
class Served:
    """A policy as clients see it.

    Attributes:
        view: how images are cut and resized, as in the view that the policy was trained on.
        contract: hash of the robot's contract; empty where the policy knows none.
        statistics_hash: of the normalisation that the policy undoes.
        model_hash: of its weights and description.
    """

    name: str
    spec: PolicySpec
    view: ViewSpec | None = None
    contract: str = ""
    statistics_hash: str = ""
    model_hash: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The observation's keys."""
        return (*(PREFIX + camera for camera in self.spec.cameras), STATE, PROMPT)

    def hello(self) -> dict[str, Any]:
        """Return what the server tells of it."""
        spec = self.spec
        return {
            "cameras": list(spec.cameras),
            "image_px": spec.image_px,
            "state_names": list(spec.state_names),
            "action_names": list(spec.action_names),
            "action_horizon": spec.chunk,
            "rate_hz": spec.rate_hz,
            "contract": self.contract,
            "view": None if self.view is None else self.view.canonical_json,
            "statistics_hash": self.statistics_hash,
            "model_hash": self.model_hash,
            "keys": list(self.keys),
        }


@dataclass(frozen=True)
class Request:
    """One checked request.

    Attributes:
        stamp_s: when the observation was made, seconds since 1970 by the robot's clock; None where not said.
        step: the client's control step, given back with the chunk.
        tail: (n, A) what is left of the chunk before, for policies that continue it.
        delay: steps that pass until the chunk arrives.
        executed: (n, A) what was done instead, in shadow mode.
    """

    observation: Observation
    adapter: str
    stamp_s: float | None = None
    step: int | None = None
    tail: NDArray[np.float32] | None = None
    delay: int = 0
    executed: NDArray[np.float32] | None = None


def adapter_of(content: Mapping[str, Any], served: Mapping[str, Served]) -> Served:
    """Return the policy that a request names, the first where it names none.

    Raises:
        RequestError: there is no such policy.
    """
    name = content.get("adapter")
    if name is None:
        return next(iter(served.values()))
    if not isinstance(name, str) or name not in served:
        raise RequestError(f"There is no adapter {reprlib.repr(name)} here; there are {', '.join(served)}.")
    return served[name]


def check(content: Mapping[str, Any], policy: Served, max_age_s: float | None = None) -> Request:
    """Return a request, its images as the policy's view would hold them.

    Raises:
        RequestError: a key is missing, unknown, or of another kind or shape; another contract; or too old.
    """
    if unknown := [key for key in content if key not in policy.keys and key not in OPTIONS]:
        raise RequestError(f"{reprlib.repr(unknown[0])} is no key of a request; expected {', '.join(policy.keys)}.")
    if missing := [key for key in policy.keys if key not in content]:
        raise RequestError(f"The request lacks {missing[0]!r}; expected {', '.join(policy.keys)}.")
    contract = content.get("contract")
    if contract is not None and contract != policy.contract:
        raise RequestError(
            f"The robot's contract is {reprlib.repr(contract)}, the policy was trained on {policy.contract!r}."
        )
    return Request(
        Observation(_images(content, policy), _state(content[STATE], policy.spec), _prompt(content[PROMPT])),
        policy.name,
        _stamp(content.get("obs_stamp"), max_age_s),
        _whole(content, "step"),
        _rows(content, "prev_chunk_tail", policy.spec),
        _whole(content, "inference_delay") or 0,
        _rows(content, "executed", policy.spec),
    )


def _images(content: Mapping[str, Any], policy: Served) -> dict[str, NDArray[np.uint8]]:
    return {camera: _image(content[PREFIX + camera], camera, policy) for camera in policy.spec.cameras}


def _image(value: object, camera: str, policy: Served) -> NDArray[np.uint8]:
    view, px = policy.view, policy.spec.image_px
    if not isinstance(value, bytes) and not (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
        and value.size
    ):
        raise RequestError(f"Expected {PREFIX + camera} as (h, w, 3) uint8 or the bytes of a JPEG, got {_kind(value)}.")
    if view is None:
        if isinstance(value, bytes) or (px and value.shape != (px, px, 3)):
            raise RequestError(f"Expected {PREFIX + camera} as ({px}, {px}, 3) uint8, got {_kind(value)}.")
        return value
    try:
        jpeg = view_jpeg(value, view, camera) if isinstance(value, bytes) else view_image(value, view, camera)
        return decode(jpeg)
    except (InputError, DamageError, ValueError) as error:
        raise RequestError(f"{PREFIX + camera}: {error}") from error


def _state(value: object, spec: PolicySpec) -> NDArray[np.float32]:
    expected = f"{len(spec.state_names)} finite numbers ({', '.join(spec.state_names)})"
    if not isinstance(value, np.ndarray | list) or not _numeric(value):
        raise RequestError(f"Expected {STATE} as {expected}, got {_kind(value)}.")
    state = np.asarray(value, np.float32)
    if state.shape != (len(spec.state_names),) or not np.isfinite(state).all():
        raise RequestError(f"Expected {STATE} as {expected}, got {reprlib.repr(state.tolist())}.")
    return state


def _numeric(value: NDArray[Any] | list[Any]) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return all(isinstance(number, int | float) for number in value)


def _prompt(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= PROMPT_CHARACTERS_MAX:
        raise RequestError(
            f"Expected {PROMPT!r} as text of up to {PROMPT_CHARACTERS_MAX} characters, got {_kind(value)}."
        )
    return value


def _stamp(value: object, max_age_s: float | None) -> float | None:
    if value is None:
        if max_age_s is not None:
            raise RequestError("Expected 'obs_stamp', when the observation was made, since this server limits its age.")
        return None
    stamp = float(value) if isinstance(value, int | float | np.floating | np.integer) else math.nan
    if not math.isfinite(stamp):
        raise RequestError(f"Expected 'obs_stamp' in seconds since 1970, got {reprlib.repr(value)}.")
    age_s = time.time() - stamp
    if max_age_s is not None and not -max_age_s <= age_s <= max_age_s:
        raise RequestError(
            f"The observation is {age_s * 1000:.0f} ms old, more than {max_age_s * 1000:.0f}; look at the clocks and the network."
        )
    return stamp


def _whole(content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 1 << 62
    ):
        raise RequestError(f"Expected {key!r} as a whole number from 0, got {reprlib.repr(value)}.")
    return None if value is None else int(value)


def _rows(content: Mapping[str, Any], key: str, spec: PolicySpec) -> NDArray[np.float32] | None:
    value = content.get(key)
    if value is None:
        return None
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "fiu"
        or value.shape[1:] != (len(spec.action_names),)
    ):
        raise RequestError(f"Expected {key!r} as (n, {len(spec.action_names)}) numbers, got {_kind(value)}.")
    if len(value) > spec.chunk or not np.isfinite(value).all():
        raise RequestError(f"Expected {key!r} as at most {spec.chunk} finite rows, got {len(value)}.")
    return cast("NDArray[np.float32]", value.astype(np.float32))


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return f"{len(value)} bytes" if isinstance(value, bytes) else reprlib.repr(value)
