"""Where work is done: in this process, on a dask cluster of this machine's cores, or on one that already runs."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, TypeVar

from hal.errors import Misuse, RemoteFault
from twin.sweep.play import identity

__all__ = ["Farm", "farm"]

T = TypeVar("T")
R = TypeVar("R")

BATCH_S = 1.0  # a task: long beside what handing it out costs, short beside what a killed worker loses
IN_FLIGHT = 2  # tasks a worker: one played, one waiting
CONNECT_S = 5.0
ATTEMPTS = 3  # workers that may die under an item before it is blamed


class Farm:
    """Does work on items and yields what came of them as it comes, in any order."""

    def __init__(self, client: Any = None) -> None:
        self.client = client  # dask.distributed's; None: this process

    @property
    def workers(self) -> int:
        """How many items are worked on at once."""
        return 1 if self.client is None else max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    def spread(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[list[tuple[T, R | None, str]]]:
        """Lists of (item, its result, "" or why there is none); ``work`` and its results must be picklable.

        Short items are handed out many at a time. An exception is its item's alone; an item whose worker dies each time is given up.
        """
        waiting = deque(items)
        if self.client is None:
            while waiting:
                yield _each(work, (waiting.popleft(),))[0]
            return
        dask, killed = _dask(), import_module("distributed.scheduler").KilledWorker
        most = max(1, len(waiting) // (4 * self.workers))  # so that no worker waits long for the last one
        size, coming = 1, dask.as_completed()
        flying: dict[Any, tuple[T, ...]] = {}
        suspects: deque[T] = deque()  # were at a worker that died: each is tried again with nothing beside it
        while waiting or suspects or flying:
            alone = not waiting
            queue, most_flying = (suspects, 1) if alone else (waiting, IN_FLIGHT * self.workers)
            while queue and len(flying) < most_flying:
                batch = tuple(queue.popleft() for _ in range(1 if alone else min(size, len(queue))))
                future = self.client.submit(_each, work, batch, pure=False)
                flying[future] = batch
                coming.add(future)
            future = next(coming)
            batch, error = flying.pop(future), future.exception()
            if error is None:
                done, seconds = future.result()
                size = int(min(max(1, BATCH_S * len(batch) / max(seconds, 1e-6)), 2 * size, most))
                yield done
            elif not isinstance(error, killed):
                raise error
            elif alone and not flying and len(batch) == 1:
                yield [(batch[0], None, f"each worker died of it, {ATTEMPTS} times: out of memory, or a crash")]
            else:
                suspects.extend(batch)
            future.release()


def _each(work: Callable[[T], R], items: tuple[T, ...]) -> tuple[list[tuple[T, R | None, str]], float]:
    began = time.perf_counter()
    done: list[tuple[T, R | None, str]] = []
    for item in items:
        try:
            done.append((item, work(item), ""))
        except Exception as error:  # one that fails is not the end of the others
            done.append((item, None, f"{type(error).__name__}: {error}"))
    return done, time.perf_counter() - began


@contextmanager
def farm(workers: int | None = None, scheduler: str | None = None) -> Iterator[Farm]:
    """A farm of ``workers`` processes here (None: one a core; 0: this process itself), or of the cluster at ``scheduler``.

    Raises:
        Misuse: dask is not installed, or workers do not run the same versions as this process.
        RemoteFault: there is no scheduler at that address, or it has no workers.
    """
    if scheduler is None and workers == 0:
        yield Farm()
        return
    dask = _dask()
    with ExitStack() as stack:
        stack.enter_context(
            import_module("dask").config.set(
                {"distributed.scheduler.allowed-failures": ATTEMPTS, "distributed.admin.low-level-log-length": 0}
            )
        )
        if scheduler is None:
            count = workers if workers is not None else len(os.sched_getaffinity(0))
            cluster = stack.enter_context(
                dask.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,  # a run is one core's work; BLAS threads are pinned to one by dask
                    processes=True,
                    dashboard_address=None,
                    silence_logs="CRITICAL",
                    memory_limit=0,
                )
            )
            client = stack.enter_context(dask.Client(cluster))
        else:
            try:
                client = stack.enter_context(dask.Client(scheduler, timeout=CONNECT_S))
            except (OSError, ValueError, TimeoutError) as error:
                raise RemoteFault(
                    f"--scheduler {scheduler}: no dask scheduler answers there within {CONNECT_S:g} s ({error}); start one with `dask scheduler`"
                ) from error
        _same_everywhere(client, scheduler)
        yield Farm(client)


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError:
        raise Misuse(
            "twin sweep needs dask.distributed: pip install 'isac-twin[sweep]', or play in this process with --workers 0"
        ) from None


def _same_everywhere(client: Any, scheduler: str | None) -> None:
    here, found = identity(), client.run(_identity_or_why)
    if not found:
        raise RemoteFault(f"--scheduler {scheduler}: it has no workers; start some with `dask worker {scheduler}`")
    for address, there in found.items():
        if isinstance(there, str):
            raise Misuse(f"worker {address}: isac-twin cannot be imported there ({there}); install the same version")
        differing = [
            f"{name} {there.get(name, 'none')} there, {mine} here"
            for name, mine in here.items()
            if there.get(name) != mine
        ]
        if differing:
            raise Misuse(
                f"worker {address} runs other versions: {'; '.join(differing)}. Rows would not be comparable; install the same"
            )


def _identity_or_why() -> dict[str, str] | str:
    try:
        from twin.sweep.play import identity as asked

        return asked()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
