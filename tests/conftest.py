"""What all tests share: the environment before anything heavy is imported, and one real Prefect server."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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


class Together(LoadScopeScheduling):
    """What stays on one core where tests run side by side: a module, all that look at the same costly runs, all of vLLM."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if re.search(r"\b(wheel|paired): Ran\b", (ROOT / module).read_text(encoding="utf-8")):
            return "runs"
        return "vllm" if "vllm" in module else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Hand out tests by what belongs together."""
    return Together(config, log)
