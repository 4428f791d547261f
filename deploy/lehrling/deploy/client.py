"""A client of the policy server, for checks and measurements: one connection, one request at a time."""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException

from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.deploy.connection import Connection
from lehrling.deploy.wire import FRAME_BYTES_MAX, pack, unpack


class PolicyClient:
    """Asks a policy server for chunks.

    Attributes:
        hello: what the server told of itself and its policies.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        certificate: Path | None = None,
        timeout_s: float = 60.0,
        answer_s: float | None = None,
    ) -> None:
        """Connect; `certificate`, if given, is trusted instead of what the machine trusts.

        Connecting may take `timeout_s`, and so may each answer where there is no `answer_s` of its own.

        Raises:
            InputError: nobody answers there, or nobody who is trusted, or the key is refused.
        """
        self._answer_s = timeout_s if answer_s is None else answer_s
        context = _trusting(certificate) if url.startswith("wss:") else None
        headers = {"Authorization": f"Api-Key {key}"} if key else {}
        try:
            with ExitStack() as stack:
                self._connection = stack.enter_context(
                    Connection(url, headers=headers, tls=context, bytes_max=FRAME_BYTES_MAX, timeout_s=timeout_s)
                )
                self.hello: dict[str, Any] = unpack(self._connection.recv(timeout_s))
                stack.pop_all()
        except InvalidStatus as error:
            said = (error.response.body or b"").decode(errors="replace").strip()
            raise InputError(f"{url} refused the connection ({error.response.status_code}): {said}") from error
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            raise InputError(
                f"{url} has no certificate that is trusted ({why}); give the plant's own with --certificate."
            ) from error
        except (OSError, WebSocketException) as error:
            raise InputError(
                f"No policy server answers at {url} ({error}); start one with `lehrling serve`."
            ) from error

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as this side knows."""
        return self._connection.open

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return the server's answer.

        Raises:
            LehrlingError: the server refused the request, or went away.
        """
        try:
            answer = self._connection.exchange(pack(observation), self._answer_s)
        except TimeoutError as error:
            raise LehrlingError(f"The policy server has not answered within {self._answer_s:g} s.") from error
        except (OSError, WebSocketException) as error:
            raise LehrlingError(f"The policy server went away ({type(error).__name__}).") from error
        if isinstance(answer, str):
            raise LehrlingError(f"The policy server refused: {answer}")
        return unpack(answer)

    def blank(self, adapter: str | None = None) -> dict[str, Any]:
        """Return an observation of nothing that fits a policy."""
        policy = self.hello["adapters"][adapter] if adapter else self.hello
        px = policy["image_px"] or 64
        images = {f"observation/{camera}": np.zeros((px, px, 3), np.uint8) for camera in policy["cameras"]}
        state = np.zeros(len(policy["state_names"]), np.float32)
        named = {"adapter": adapter} if adapter else {}
        return {**images, "observation/state": state, "prompt": "check", **named}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _trusting(certificate: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise InputError(
            f"Expected a certificate (PEM) in {certificate}, but it cannot be read ({error.strerror or error})."
        ) from error


@dataclass(frozen=True)
class Timing:
    """Times of a number of requests, whole and of the inference within [ms]."""

    requests: int
    total_ms: tuple[float, float]
    infer_ms: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        (total, slowest), (infer, slowest_infer) = self.total_ms, self.infer_ms
        return {
            "requests": self.requests,
            "p50_ms": total,
            "p99_ms": slowest,
            "infer_p50_ms": infer,
            "infer_p99_ms": slowest_infer,
        }


def measure(client: PolicyClient, requests: int, adapter: str | None = None) -> Timing:
    """Ask for so many chunks, one after another."""
    seen, total, infer = client.blank(adapter), [], []
    for _ in range(requests):
        began = time.perf_counter()
        answer = client.infer(seen)
        total.append((time.perf_counter() - began) * 1e3)
        infer.append(float(answer["server_timing"]["infer_ms"]))
    return Timing(requests, _p50_p99(total), _p50_p99(infer))


def _p50_p99(values: list[float]) -> tuple[float, float]:
    median, late = np.percentile(values, [50, 99])
    return round(float(median), 3), round(float(late), 3)
