"""Training in several processes by accelerate, for real: two ranks on this machine's CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlrf.backends.training.checks import check_integrations, check_quantization, read_launch
from rlrf.backends.training.train import Progress, spec_hash, train
from rlrf.errors import TrainingError
from rlrf.train_config import Lora
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, run_here, steps_of

TWO_ON_CPU = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
num_processes: 2
num_machines: 1
use_cpu: true
mixed_precision: 'no'
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "two.yaml").write_text(TWO_ON_CPU)
    return tmp_path / "two.yaml"


def test_two_killed_and_resumed_processes_do_what_one_does_with_twice_the_batch(
    model: Path, tmp_path: Path, two: Path
) -> None:
    shape = {"max_steps": None, "epochs": 2.0}
    alone = build_spec(model, tmp_path, output=tmp_path / "alone" / "out", batch_size=8, **shape)
    run_here(alone)
    spec = build_spec(model, tmp_path, batch_size=4, accelerate_config=two, save_every=2, **shape)
    pids: list[int] = []

    def kill_after_two(event: Progress) -> None:
        if event["event"] == "started":
            pids.append(event["pid"])
        if event["event"] == "saved" and event["step"] == 2:
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="Root Cause"):
        train(spec, kill_after_two)
    assert not spec.output.exists()
    events: list[Progress] = []
    result = train(spec, events.append)
    assert events[0]["resumed_from"] in (2, 4)
    assert (events[0]["processes"], events[0]["steps"], events[0]["reference"]) == (2, 6, "kept")
    assert [event["step"] for event in steps_of(events)] == list(range(events[0]["resumed_from"] + 1, 7))
    # One process's pass over the pairs and two processes' have the same batches.
    kept = [next((tmp_path / place / "reference").glob("*.parquet")) for place in ("alone", ".")]
    assert kept[0].name == kept[1].name
    assert kept[0].read_bytes() == kept[1].read_bytes()
    one, both = (load_file(folder / "model.safetensors") for folder in (alone.output, result.folder))
    assert one.keys() == both.keys()
    # Sums over two halves of a batch round otherwise than a sum over all of it.
    assert max(float((one[name] - both[name]).abs().max()) for name in one) < 1e-4
    assert events[-1]["event"] == "finished"
    assert result.phases.keys() == {"start", "load", "reference", "train", "save"}


PARENT = """
import sys
from pathlib import Path
from rlrf.backends.training.train import train
from rlrf.backends.training.spec import TrainSpec
train(TrainSpec.model_validate_json(Path(sys.argv[1]).read_text()), lambda event: print(event["event"], flush=True))
"""


def command_lines(word: str) -> list[str]:
    """Command lines of the living processes that name `word`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


def test_launcher_and_ranks_die_with_the_parent(model: Path, tmp_path: Path, two: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=100_000, accelerate_config=two)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    identity = spec_hash(spec)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "spec.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "started"
        assert len(command_lines(identity)) == 3
        parent.kill()
    deadline = time.monotonic() + 10
    while command_lines(identity) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert command_lines(identity) == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "can't be read"),
        ("{", "can't be read"),
        ("model: tiny", "no accelerate config"),
        ("just text", "no accelerate config"),
        ("distributed_type: XLA\nnum_processes: 8", "distributed_type 'XLA'"),
        ("distributed_type: MULTI_GPU", "num_processes None"),
        ("distributed_type: MULTI_GPU\nnum_processes: 8\nnum_machines: 2", "num_machines 2"),
        ("distributed_type: FSDP\nnum_processes: 2\nuse_cpu: true", "GPUs only"),
        ("distributed_type: MULTI_CPU\nnum_processes: 2\nmpirun_config: {mpirun_hostfile: hosts}", "mpirun_config"),
    ],
)
def test_a_file_that_is_no_usable_accelerate_config_is_refused(
    model: Path, tmp_path: Path, content: str | None, fault: str
) -> None:
    path = tmp_path / "accelerate.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrainingError, match=fault):
        train(build_spec(model, tmp_path, accelerate_config=path))
    assert not (tmp_path / "out.work").exists()


def test_a_split_model_needs_gpus(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "fsdp.yaml"
    path.write_text("distributed_type: FSDP\nnum_processes: 2")
    with pytest.raises(TrainingError, match="none to use"):
        run_here(build_spec(model, tmp_path, accelerate_config=path))


def test_what_a_config_says_is_part_of_the_hash(model: Path, tmp_path: Path, two: Path) -> None:
    spec = build_spec(model, tmp_path, accelerate_config=two)
    before = spec_hash(spec)
    assert before != spec_hash(spec.model_copy(update={"accelerate_config": None}))
    two.write_text(TWO_ON_CPU.replace("num_processes: 2", "num_processes: 4"))
    assert spec_hash(spec) != before
    assert read_launch(two).processes == 4


def test_packages_that_lack_are_named_before_anything_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorboard", "tensorboardX", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(TrainingError, match="'tensorboard' needs the package"):
        check_integrations(["tensorboard"])
    with pytest.raises(TrainingError, match="'paper' isn't known"):
        train(build_spec(model, tmp_path, report_to=("paper",)))
    with pytest.raises(TrainingError, match="bitsandbytes"):
        check_quantization("4bit")
    with pytest.raises(TrainingError, match="bitsandbytes"):
        train(build_spec(model, tmp_path, lora=Lora(r=1, alpha=1, quantize="4bit")))
    assert not (tmp_path / "out.work").exists()
