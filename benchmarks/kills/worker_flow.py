"""The flywheel as a deployment's entrypoint, with the journal: `benchmarks.kills.worker_flow.flywheel`."""

import flows.cli  # noqa: F401  # sets what Prefect reads when it is imported
from benchmarks.kills import runner

runner.watch()

from flows.flywheel import flywheel  # noqa: E402

__all__ = ["flywheel"]
