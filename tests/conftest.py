"""What all tests share: the environment before anything heavy is imported, and one real Prefect server."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
PREFECT_FOLDER = tempfile.mkdtemp(prefix="rlrf-prefect-")
atexit.register(shutil.rmtree, PREFECT_FOLDER, ignore_errors=True)

# Prefect reads these when it is imported; subprocesses inherit them.
os.environ |= {
    "PREFECT_HOME": PREFECT_FOLDER,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "160",
    "PYTHONPATH": str(ROOT),
}
sys.path.insert(0, str(ROOT))  # `tests.…:function` is importable here as it is in subprocesses

settings.register_profile("rlrf", deadline=None)
settings.load_profile("rlrf")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A real server with an empty database, started once, about 10 s; the value is its API's address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        address = PREFECT_API_URL.value()
        os.environ["PREFECT_API_URL"] = address
        yield address
        del os.environ["PREFECT_API_URL"]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays together where tests run side by side: a module, all that look at the same costly runs, all of vLLM."""
    lookers = {item.path for item in items if {"wheel", "paired"} & set(getattr(item, "fixturenames", ()))}
    for item in items:
        group = "runs" if item.path in lookers else "vllm" if "vllm" in item.path.name else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
