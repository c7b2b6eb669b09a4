"""Training as a process of its own: its identity, and a folder that exists only when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rlrf.backends.training.adapters import Adapter, find_adapter
from rlrf.backends.training.checks import Launch, check_integrations, check_quantization, read_launch
from rlrf.backends.training.launch import run_process
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.weights import check_weights, weights_digest
from rlrf.errors import BackendError, TrainingError

RECORD_FILE = "training.json"
"""In a result folder: the spec, its hash, steps, seconds, phases, metrics and excluded rows."""

LOG_LINES = 12

Progress = dict[str, Any]
"""One event of a training. `event` is "started" (pid, steps, resumed_from, rows, excluded, processes, device, precision,
adapter: None, "new" or "continued", refused: newer checkpoints that can't be gone on from, each with its reason,
memory: "fits" or "unchecked", and for dpo reference: "computed" or "kept"),
"step" (step, steps, loss and trl's other metrics), "saved" (step, steps) or "finished" (steps, seconds, phases)."""


class TrainJob(BaseModel):
    """What the training process is told: a spec with absolute paths, and the digests that were taken of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: TrainSpec
    identity: str
    weights_digest: str
    adapter: Adapter | None
    launch: Launch | None

    @property
    def folder(self) -> Path:
        """Where the checkpoints of this spec over these files lie."""
        return self.spec.work / self.identity


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training.

    Attributes:
        folder: the trained model, weights merged; with lora also `adapter/`, see `rlrf.backends.training.adapters`.
        steps: optimizer steps; metrics: what trl logged.
        seconds: wall-clock time of the last process; phases: its parts "start", "load", "reference", "train", "save".
        rows: rows trained on; excluded: rows left out by reason ("too_long", "special_tokens", "template").
    """

    folder: Path
    steps: int
    metrics: list[dict[str, float]]
    seconds: float
    rows: int
    excluded: dict[str, int]
    phases: dict[str, float] = field(default_factory=dict)


def train(spec: TrainSpec, on_progress: Callable[[Progress], None] | None = None) -> TrainResult:
    """Run the training process to its end; an output that is complete already is returned at once.

    After a crash the next call goes on from the last complete checkpoint of the same spec over the same files.

    Raises:
        BackendError: the model folder can't be used.
        TrainingError: the data, the output, the accelerate config or a package can't be used, the batch doesn't fit
            into memory, a health rule stopped it, or the process failed; the message has its last words.
    """
    job = plan(spec)
    spec = job.spec
    if spec.output.exists():
        return _finished(job)
    check_integrations(spec.report_to)
    check_quantization(spec.lora.quantize if spec.lora else None)
    spec.work.mkdir(parents=True, exist_ok=True)
    job_file = spec.work / f"{job.identity}.json"
    job_file.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    log = spec.work / "train.log"
    module = ["rlrf.backends.training.process", str(job_file), str(os.getpid())]
    code, reason = run_process(module, log, _environment(job), on_progress)
    if code != 0 or not spec.output.exists():
        raise TrainingError(_failure(job, log, code, reason))
    shutil.rmtree(job.folder, ignore_errors=True)
    return _finished(job)


def plan(spec: TrainSpec) -> TrainJob:
    """The job of a spec: reads every file that bears on the result once.

    Raises:
        BackendError: the model folder can't be used.
        TrainingError: the data or the accelerate config can't be used.
    """
    spec = _absolute(spec)
    weights = weights_digest(spec.model)
    adapter = find_adapter(spec.model, spec.lora) if spec.lora else None
    launch = read_launch(spec.accelerate_config) if spec.accelerate_config else None
    content = {"settings": _settings(spec), "model": weights, "data": _file_digest(spec.data)}
    if adapter:
        content["adapter"] = adapter.digest
    if launch:
        content["accelerate"] = launch.digest
    identity = blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
    return TrainJob(spec=spec, identity=identity, weights_digest=weights, adapter=adapter, launch=launch)


def spec_hash(spec: TrainSpec) -> str:
    """Blake2b-128 in hex of all that bears on the result: settings and the contents of files, not places.

    Raises as `plan`.
    """
    return plan(spec).identity


def read_job(path: Path) -> TrainJob:
    """The job of a JSON file.

    Raises:
        TrainingError: it isn't one, with the dotted path of each wrong value.
    """
    try:
        return TrainJob.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} ({e['input']!r})" for e in error.errors())
        raise TrainingError(f"training job {str(path)!r}: {faults}") from error


def _settings(spec: TrainSpec) -> dict[str, Any]:
    """Values that came later are left out while they are at their default: older hashes stay what they were."""
    places = {"model", "data", "output", "save_every", "log_every", "device", "accelerate_config"}
    neutral = {"report_to", "health"} | ({"precision"} if spec.precision == "auto" else set())
    unused = {"beta", "sft_weight"} if spec.method == "rs" else set()
    settings = spec.model_dump(mode="json", exclude=places | neutral | unused)
    # It doesn't bear on the result, but hashes once held it.
    settings["gradient_checkpointing"] = False
    if spec.lora and spec.lora.quantize is None:
        del settings["lora"]["quantize"]
    return settings


def _absolute(spec: TrainSpec) -> TrainSpec:
    names = ("model", "data", "output", "accelerate_config")
    given = {name: getattr(spec, name) for name in names}
    return spec.model_copy(update={name: path.expanduser().absolute() for name, path in given.items() if path})


def _environment(job: TrainJob) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "TQDM_DISABLE": "1"}
    environment = {"TENSORBOARD_LOGGING_DIR": str(job.spec.work / "tensorboard"), **os.environ, **quiet}
    if job.launch is None or job.launch.processes == 1:
        # One process that sees several GPUs would spread itself over them by nn.DataParallel, which trl refuses.
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    else:
        # Processes of one machine meet on its loopback interface, whatever its host name resolves to.
        environment |= {name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    return environment


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise TrainingError(f"training data {str(path)!r}: no such file; give a JSONL or Parquet file")
    with path.open("rb") as file:
        digest = blake2b(digest_size=16)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _finished(job: TrainJob) -> TrainResult:
    """Read the record of a complete output, and refuse one that isn't this spec's."""
    spec, identity = job.spec, job.identity
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
    phases = record.get("phases", {})
    return TrainResult(folder=spec.output, phases=phases, **{name: record[name] for name in fields})


def _failure(job: TrainJob, log: Path, code: int, reason: str | None) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if reason is None:
        ended = (
            f"was killed by {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"ended with code {code}"
        )
        reason = "\n".join([f"the process {ended}; its last lines:", *lines[-LOG_LINES:]])
    elif job.launch:
        # What torch's launcher saw: a rank's reason may only be that it lost another, which had no time for words.
        first = next((at for at in range(len(lines), 0, -1) if lines[at - 1].startswith("Root Cause")), len(lines))
        reason = "\n".join([reason, *lines[first - 1 : first + 4]])
    return f"training {job.spec.method} of {str(job.spec.output)!r} failed: {reason}\nThe log is {str(log)!r}."
