"""Run independent pieces of work in this process, in local processes, or on a Ray cluster; results come in order."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from lehrling.datasets.errors import InputError
from lehrling.datasets.processes import die_with_parent

AHEAD_PER_WORKER = 2
RETRIES, CONNECT_S = 3, 5.0


@dataclass(frozen=True)
class Workers:
    """Where work is done.

    Attributes:
        processes: on this machine; 1 works here.
        ray: address of a cluster, such as `ray://head:10001` or `auto`; `local` starts one on this machine. The work's
            paths must be those of a file system that its machines share.
    """

    processes: int = 1
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise InputError(f"Expected at least one worker, got {self.processes}.")


def fan_out[Job, Done](function: Callable[[Job], Done], jobs: Sequence[Job], workers: Workers) -> Iterator[Done]:
    """Yield what `function`, importable by name, gives for each job, in the jobs' order.

    The first error ends it; work that was done stays done. A Ray task whose machine dies is done again elsewhere.

    Raises:
        InputError: Ray is wanted and not installed, or there is no cluster at its address.
    """
    if workers.ray is not None:
        yield from _on_ray(function, jobs, workers)
    elif workers.processes == 1 or len(jobs) < 2:
        yield from map(function, jobs)
    else:
        yield from _in_processes(function, jobs, workers.processes)


def _in_processes[Job, Done](function: Callable[[Job], Done], jobs: Sequence[Job], count: int) -> Iterator[Done]:
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(min(count, len(jobs)), context, die_with_parent, (os.getpid(),)) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _on_ray[Job, Done](function: Callable[[Job], Done], jobs: Sequence[Job], workers: Workers) -> Iterator[Done]:
    ray = _connected(workers)
    task = ray.remote(function).options(max_retries=RETRIES, num_cpus=1)
    ahead = AHEAD_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, pending = deque(jobs), deque[Any]()
    try:
        while waiting or pending:
            while waiting and len(pending) < ahead:
                pending.append(task.remote(waiting.popleft()))
            yield _result(ray, pending.popleft())
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None


def _connected(workers: Workers) -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; install `lehrling-datasets[ray]`, or leave out --ray.") from None
    if not ray.is_initialized():
        local = workers.ray == "local"
        _check_answers(str(workers.ray))
        try:
            ray.init(
                address="local" if local else workers.ray,
                num_cpus=workers.processes if local else None,
                include_dashboard=False if local else None,
                log_to_driver=False,
                logging_level="warning",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines()[0][:200].rstrip(".")
            raise InputError(f"Expected a Ray cluster at {workers.ray!r}, got none: {told}.") from error
    return ray


def _check_answers(address: str) -> None:
    """Refuse a host and port at which nothing listens, for which Ray would wait minutes.

    Raises:
        InputError: nothing answers there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"Expected a Ray cluster at {address!r}, got none: {error}.") from error
