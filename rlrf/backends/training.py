"""Training as a process of its own: its spec, its progress, and a folder that exists only when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlrf.backends.weights import check_weights, weights_digest
from rlrf.errors import BackendError, TrainingError

RECORD_FILE = "training.json"
"""In a result folder: the spec, its hash, steps, seconds, metrics and excluded rows."""

TERMINATE_SECONDS = 10.0
LOG_LINES = 12

Progress = dict[str, Any]
"""One event of a training: `event` is "started" (pid, steps, resumed_from, rows, excluded), "step" (step, steps, loss
and trl's other metrics) or "saved" (step, steps)."""


class LoraSpec(BaseModel):
    """A low-rank adapter (Hu et al. 2021, by peft); it is merged into the result's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class TrainSpec(BaseModel):
    """One training, complete: equal specs over equal files give equal weights on one machine.

    Attributes:
        method: "dpo" (Rafailov et al. 2023; paper, section 3.4) or "rs", fine-tuning on the chosen responses alone.
        model: folder of the model to train; for dpo it is the reference too.
        data: JSONL or Parquet with message lists `prompt`, `chosen`, and for dpo `rejected`.
        output: folder to be made; beside it, `<output>.work/` holds checkpoints and the log.
        epochs, max_steps: exactly one of them; epochs may be a fraction.
        batch_size: pairs (dpo) or responses (rs) per forward pass; a step takes gradient_accumulation of them.
        beta: dpo's KL strength; rs ignores it.
        sft_weight: weight of the mean token NLL of the chosen beside dpo's loss, 0 is plain dpo; rs ignores it.
        warmup_ratio: share of the steps over which the learning rate rises.
        max_length: most tokens of prompt and response together; longer rows are excluded and counted, never cut.
        lora: None trains every weight, in float32 with the result in the model's own dtype.
        save_every: steps between checkpoints, None for none; log_every: steps between "step" events.
        device: "auto" is CUDA where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["dpo", "rs"]
    model: Path
    data: Path
    output: Path
    learning_rate: float = Field(gt=0, lt=1)
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    beta: float = Field(default=0.1, gt=0)
    sft_weight: float = Field(default=0.0, ge=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(ge=2)
    lora: LoraSpec | None = None
    gradient_checkpointing: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    save_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=10, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _one_duration(self) -> TrainSpec:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(f"epochs {self.epochs!r} and max_steps {self.max_steps!r}; give exactly one of them")
        return self

    @property
    def work(self) -> Path:
        """Where checkpoints and the log of this output lie."""
        return self.output.with_name(self.output.name + ".work")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training: its folder, optimizer steps, logged metrics, wall-clock seconds of the last process, and the
    rows that were left out by reason ("too_long", "special_tokens", "template")."""

    folder: Path
    steps: int
    metrics: list[dict[str, float]]
    seconds: float
    rows: int
    excluded: dict[str, int]


def train(spec: TrainSpec, on_progress: Callable[[Progress], None] | None = None) -> TrainResult:
    """Run the training process to its end; an output that is complete already is returned at once.

    After a crash the next call goes on from the last complete checkpoint of the same spec over the same files.

    Raises:
        BackendError: the model folder can't be used.
        TrainingError: the data or the output can't be used, or the process failed; the message has its last words.
    """
    spec = _absolute(spec)
    identity = spec_hash(spec)
    if spec.output.exists():
        return _finished(spec, identity)
    spec.work.mkdir(parents=True, exist_ok=True)
    spec_file = spec.work / f"{identity}.json"
    spec_file.write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    with _process(spec, spec_file, identity) as process:
        reason = _follow(process, on_progress)
    if process.returncode != 0 or not spec.output.exists():
        raise TrainingError(_failure(spec, process.returncode, reason))
    shutil.rmtree(spec.work / identity, ignore_errors=True)
    return _finished(spec, identity)


def spec_hash(spec: TrainSpec) -> str:
    """Blake2b-128 in hex of all that bears on the result: settings and the content of model and data, not places."""
    places = {"model", "data", "output", "save_every", "log_every", "device"}
    unused = {"beta", "sft_weight"} if spec.method == "rs" else set()
    settings = spec.model_dump(mode="json", exclude=places | unused)
    content = {"settings": settings, "model": weights_digest(spec.model), "data": _file_digest(spec.data)}
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_spec(path: Path) -> TrainSpec:
    """The spec of a JSON file.

    Raises:
        TrainingError: it isn't one, with the dotted path of each wrong value.
    """
    try:
        return TrainSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} ({e['input']!r})" for e in error.errors())
        raise TrainingError(f"training spec {str(path)!r}: {faults}") from error


def _absolute(spec: TrainSpec) -> TrainSpec:
    places = {name: getattr(spec, name).expanduser().absolute() for name in ("model", "data", "output")}
    return spec.model_copy(update=places)


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise TrainingError(f"training data {str(path)!r}: no such file; give a JSONL or Parquet file")
    with path.open("rb") as file:
        digest = blake2b(digest_size=16)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _finished(spec: TrainSpec, identity: str) -> TrainResult:
    """Read the record of a complete output, and refuse one that isn't this spec's."""
    remedy = "choose another output folder, or remove this one"
    try:
        check_weights(spec.output)
        record = json.loads((spec.output / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, BackendError) as error:
        raise TrainingError(f"output {str(spec.output)!r} isn't a finished training ({error}); {remedy}") from error
    if record["spec_hash"] != identity:
        raise TrainingError(
            f"output {str(spec.output)!r} holds another training "
            f"(hash {record['spec_hash']!r}, not {identity!r}); {remedy}"
        )
    fields = ("steps", "metrics", "seconds", "rows", "excluded")
    return TrainResult(folder=spec.output, **{name: record[name] for name in fields})


@contextmanager
def _process(spec: TrainSpec, spec_file: Path, identity: str) -> Iterator[subprocess.Popen[str]]:
    """The training process in its own group; nothing of it outlives this block, nor (on Linux) this process."""
    command = [sys.executable, "-m", "rlrf.backends.train_process", str(spec_file), identity, str(os.getpid())]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}
    with (spec.work / "train.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **quiet},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _follow(process: subprocess.Popen[str], on_progress: Callable[[Progress], None] | None) -> str | None:
    """Hand on every event until the process closes its output; return the reason if it reports that it failed."""
    reason = None
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "failed":
            reason = event["reason"]
        elif on_progress:
            on_progress(event)
    process.wait()
    return reason


def _failure(spec: TrainSpec, code: int, reason: str | None) -> str:
    log = spec.work / "train.log"
    if reason is None:
        ended = (
            f"was killed by {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"ended with code {code}"
        )
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        reason = "\n".join([f"the process {ended}; its last lines:", *lines[-LOG_LINES:]])
    return f"training {spec.method} of {str(spec.output)!r} failed: {reason}\nThe log is {str(log)!r}."
