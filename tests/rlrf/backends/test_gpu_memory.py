"""Waiting for GPU memory, against an nvidia-smi that says what a file says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rlrf.backends.gpu_memory import TOLERANCE, memory_in_use, wait_until_back
from tests.rlrf.backends.fake_driver import MEBIBYTE, FakeDriver


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    made = FakeDriver(tmp_path / "driver")
    monkeypatch.setenv("PATH", str(made.folder))
    return made


def test_bytes_by_gpu(driver: FakeDriver) -> None:
    driver.says({"GPU-a": 100, "GPU-b": 0, "MIG-c": "[N/A]"})
    assert memory_in_use() == {"GPU-a": 100 * MEBIBYTE, "GPU-b": 0}


def test_without_the_tool_there_is_nothing_to_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory_in_use() == {}
    waited = wait_until_back({}, {}, 60)
    assert (waited.seconds, waited.held) == (0.0, 0)


def test_a_driver_that_fails_says_nothing(driver: FakeDriver) -> None:
    driver.breaks()
    assert memory_in_use() == {}


def test_memory_comes_back_after_a_while(driver: FakeDriver) -> None:
    before = {"GPU-a": 500 * MEBIBYTE}
    driver.says({"GPU-a": 70_000})
    taken = memory_in_use()
    threading.Timer(0.5, driver.says, [{"GPU-a": 510}]).start()
    waited = wait_until_back(before, taken, 60)
    assert waited.held == 0
    assert waited.seconds >= 0.4


def test_what_never_comes_back_is_counted(driver: FakeDriver) -> None:
    driver.says({"GPU-a": 3000})
    waited = wait_until_back({"GPU-a": 1000 * MEBIBYTE}, memory_in_use(), 0.5)
    assert waited.held == 2000 * MEBIBYTE
    assert waited.seconds >= 0.5


def test_a_driver_that_breaks_meanwhile_is_asked_until_the_time_is_up(driver: FakeDriver) -> None:
    driver.says({"GPU-a": 3000})
    taken = memory_in_use()
    driver.breaks()
    assert wait_until_back({"GPU-a": 0}, taken, 0.3).held == 3000 * MEBIBYTE


def test_gpus_that_were_not_used_are_not_waited_for(driver: FakeDriver) -> None:
    """Somebody else works on GPU-b, more and more."""
    before = {"GPU-a": 0, "GPU-b": 1000 * MEBIBYTE}
    driver.says({"GPU-a": 0, "GPU-b": 1100})
    taken = memory_in_use()
    driver.says({"GPU-a": 0, "GPU-b": 60_000})
    waited = wait_until_back(before, taken, 60)
    assert (waited.seconds, waited.held) == (0.0, 0)


def test_a_little_more_than_before_is_as_before(driver: FakeDriver) -> None:
    driver.says({"GPU-a": TOLERANCE // MEBIBYTE})
    assert wait_until_back({"GPU-a": 0}, {"GPU-a": 70_000 * MEBIBYTE}, 60).held == 0
