"""Deadlines end tries as asyncio.timeout does, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from rlrf.backends.endpoint.deadlines import Deadlines


async def late(deadlines: Deadlines, seconds: float, work: float) -> float:
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadlines.of(seconds):
        await asyncio.sleep(work)
    return time.monotonic() - started


async def in_time(deadlines: Deadlines, seconds: float, work: float) -> float:
    with deadlines.of(seconds):
        await asyncio.sleep(work)
    return work


def test_each_task_has_its_own_deadline() -> None:
    async def main() -> list[float]:
        deadlines = Deadlines()
        tasks = [
            late(deadlines, 0.1, 60),
            late(deadlines, 0.4, 60),
            in_time(deadlines, 10.0, 0.3),
            late(deadlines, 0.2, 60),
        ]
        spent = await asyncio.gather(*tasks)
        assert deadlines.due == {}
        return spent

    first, second, _, third = asyncio.run(main())
    assert 0.1 <= first < third < second
    assert second >= 0.4


def test_deadlines_may_follow_one_another() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        for _ in range(3):
            await late(deadlines, 0.05, 60)
            await in_time(deadlines, 0.5, 0.01)

    asyncio.run(main())


def test_a_cancelled_task_is_cancelled() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        task = asyncio.create_task(in_time(deadlines, 10.0, 60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert deadlines.due == {}

    asyncio.run(main())


def test_a_task_that_is_cancelled_when_it_is_late_is_cancelled() -> None:
    async def main() -> None:
        deadlines = Deadlines()

        async def stubborn() -> None:
            with deadlines.of(0.05):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
                    raise

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(stubborn())

    asyncio.run(main())


def test_an_error_is_passed_on() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError), Deadlines().of(1.0):
            raise ZeroDivisionError

    asyncio.run(main())
