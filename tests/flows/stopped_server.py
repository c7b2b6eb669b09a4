"""A flow, run as a module, that stops its Prefect server in the middle of a stage, tells of its judge, and fails."""

import os
import signal as signals
import sys
import time
from pathlib import Path

from prefect import flow

from rlrf.config import load_config
from rlrf.errors import StoppedError
from rlrf.handles import Handle, Run
from rlrf.stages import Key
from storage.store import open_store
from tasks import progress
from tasks.outbox import outbox
from tasks.signals import ACCURACY_DOWN, JUDGE_HEALTH, signal
from tasks.stage import Stage, stage

KEY = "00000000-0000-0000-0000-000000000001"
ADVANCES = 200


@stage("numbers", lambda run, server: Key("numbers", KEY, {}))
def numbers(stage: Stage, run: Run, server: int) -> Handle:
    """Advances while nobody answers, and says how long that took, and how long the server was away."""
    progress.ARTIFACT_SECONDS = progress.LOG_SECONDS = 0.0
    stage.progress.begin(ADVANCES, 0)
    stage.progress.advance(1)
    os.killpg(server, signals.SIGSTOP)
    began = time.monotonic()
    for _ in range(ADVANCES - 1):
        stage.progress.advance(1)
    took = time.monotonic() - began
    time.sleep(1.0)
    hung = not outbox.flush(0.1)
    os.killpg(server, signals.SIGCONT)
    print(f"took {took:.3f}", f"hung {hung}", flush=True)
    return stage.handle(ADVANCES, KEY)


@flow(name="flywheel", validate_parameters=False, persist_result=False)
def wheel(run: Run, server: int) -> None:
    """The stage, two events, and a stop."""
    numbers(run, server)
    signal(JUDGE_HEALTH, run.config, measure="ties", value=0.75, limit=0.5)
    signal(ACCURACY_DOWN, run.config, iteration=3, gain=-0.25, low=-0.5, high=-0.125, accuracy=0.5)
    outbox.flush()
    raise StoppedError("a stop on purpose")


if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]))
    try:
        wheel(Run(run_id=KEY, store_id=open_store(config.store_path).store_id, config=config), int(sys.argv[2]))
    except StoppedError:
        print("stopped")
