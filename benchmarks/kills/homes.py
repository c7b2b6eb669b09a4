"""The wheel that is killed: its configuration, its processes, and copies of its home."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kills import judge
from benchmarks.kills.runner import JOURNAL

BATCH = 16
CONCURRENCY, CHOICES = 4, 4
ENGINES = {
    "transformers": f'type = "transformers"\nbatch_size = {BATCH}',
    "vllm": f'type = "vllm"\nconcurrency = {CONCURRENCY}\nchoices_per_request = {CHOICES}\nkv_cache_gib = 0.125\n'
    "max_num_seqs = 16\nrestarts = 100",
}
BOUNDS = {"transformers": BATCH, "vllm": CONCURRENCY * CHOICES}
"""Rows under way at most, with one worker."""
CONFIG = """
name = "kills"
home = {home}
iterations = {iterations}
[engine]
{engine}
[policy.bootstrap]
seed = {seed}
prompts = 120
held_out = 24
steps = 140
[prompts]
per_iteration = 40
[explore]
n = 4
max_tokens = 28
[judge]
type = "python"
function = {judge}
aspects = ["answer", "form"]
[refine]
m = 2
max_tokens = 28
compare = 8
budget = {{solved = "off", hopeless = "off"}}
[train]
learning_rate = 3e-4
batch_size = 4
sft_weight = 1.0
max_length = 384
save_every = 2
[evaluate]
max_tokens = 28
[gate]
patience = 9
[pairs]
min_pairs = 4
[limits]
unrated = 1.0
failed = 0.0
"""


@dataclass
class Wheel:
    """One home and how it is run; every round uses the same path, since a store names folders."""

    folder: Path
    engine: str
    seed: int = 0
    iterations: int = 2
    results: int = 0
    """Rises with every round: Prefect's results of a copied store are another store's."""
    pace: float = 1.0
    """How much longer than a minute an unkilled run takes here: random moments are spread by as much."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The home under work."""
        return self.folder / f"home-{self.engine}"

    @property
    def config(self) -> Path:
        """The run's file."""
        return self.folder / f"{self.engine}.toml"

    @property
    def journal(self) -> Path:
        """What the processes of this round noted."""
        return self.folder / f"journal-{self.engine}.jsonl"

    def write_config(self) -> None:
        """Write the run's file."""
        places = {"home": json.dumps(str(self.home)), "judge": json.dumps(f"{judge.__file__}:rate")}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            CONFIG.format(engine=ENGINES[self.engine], seed=self.seed, iterations=self.iterations, **places)
        )

    def begin(self, prefix: Path | None) -> None:
        """An empty home, or a copy of one that has got somewhere; an empty journal."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.journal.unlink(missing_ok=True)
        if prefix is not None:
            shutil.copytree(prefix, self.home)
        self.results += 1

    def surroundings(self) -> dict[str, str]:
        """The environment of its processes."""
        results = self.folder / "prefect-results" / f"{self.engine}-{self.results}"
        return os.environ | {
            "PREFECT_LOCAL_STORAGE_PATH": str(results),
            "OMP_NUM_THREADS": "1",
            JOURNAL: str(self.journal),
            **self.environment,
        }

    def start(self) -> subprocess.Popen[bytes]:
        """`rlrf run CONFIG` as a process of a session of its own."""
        with (self.folder / f"run-{self.engine}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.kills.runner", self.journal, "run", self.config],
                env=self.surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def entries(self) -> list[dict[str, Any]]:
        """The journal's lines; one that is only half written yet is left for later."""
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines(keepends=True) if line.endswith("\n")]


def die_with_parent() -> None:
    """Between fork and exec: what this program starts doesn't outlive it, also when it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    words: str


def processes() -> Iterator[Process]:
    """The process table without this process and without zombies."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError, ValueError, IndexError):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                state, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z":
                    yield Process(int(folder.name), int(parent), int(session), words)


def kill(pid: int, *, group: bool = False) -> bool:
    """Kill -9; False where there is nothing to kill any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
