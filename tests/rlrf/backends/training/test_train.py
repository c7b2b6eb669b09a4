"""Training on a tiny model: what a spec promises, and what a crash leaves behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from rlrf.backends.local import LocalGenerator
from rlrf.backends.model_info import load_tokenizer
from rlrf.backends.training.rows import read_rows, tokenise
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import RECORD_FILE, Progress, plan, read_job, spec_hash, train
from rlrf.backends.weights import weights_digest
from rlrf.errors import BackendError, TrainingError
from rlrf.records import Request, Sampling
from rlrf.train_config import Lora
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, pair, run_here, say, steps_of, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_dpo_lowers_the_loss_and_makes_a_model_that_answers(model: Path, tmp_path: Path) -> None:
    events: list[Progress] = []
    spec = build_spec(model, tmp_path, sft_weight=1.0, max_steps=12, report_to=("tensorboard",))
    result = train(spec, events.append)
    losses = [entry["loss"] for entry in result.metrics]
    assert losses[-1] < losses[0] - 0.5
    assert result.metrics[-1]["rewards/accuracies"] == 1.0
    assert result.steps == 12
    assert result.rows == 24
    assert result.excluded == {}
    assert [event["step"] for event in steps_of(events)] == list(range(1, 13))
    assert events[0]["event"] == "started"
    assert events[0]["steps"] == 12
    (reported,) = (spec.work / "tensorboard").iterdir()
    assert b"train/rewards/accuracies" in reported.read_bytes()
    generator = LocalGenerator(result.folder, device="cpu")
    [[answer]] = generator.generate([Request("r", tuple(say("user", "3 + 4?")), 0)], Sampling(max_tokens=5))
    assert answer.request_id == "r"


def test_only_weights_differ_from_the_base(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=2)
    run_here(spec)
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]:
        assert (spec.output / name).read_bytes() == (model / name).read_bytes()
    config = json.loads((spec.output / "config.json").read_text())
    assert config == {**json.loads((model / "config.json").read_text()), "use_cache": True}
    before, after = load_file(model / "model.safetensors"), load_file(spec.output / "model.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {n: (t.dtype, t.shape) for n, t in after.items()}
    assert weights_digest(model) != weights_digest(spec.output)


def test_the_same_spec_gives_the_same_weights_elsewhere(model: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        spec = build_spec(model, tmp_path / name)
        run_here(spec)
        digests.append(weights_digest(spec.output))
    (tmp_path / "three").mkdir()
    other = build_spec(model, tmp_path / "three", seed=1)
    run_here(other)
    assert digests[0] == digests[1] != weights_digest(other.output)


def test_rs_learns_the_chosen_and_its_end(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", [{"prompt": row["prompt"], "chosen": row["chosen"]} for row in [pair(3)] * 16])
    spec = build_spec(model, tmp_path, method="rs", max_steps=60, learning_rate=2e-2)
    losses = [event["loss"] for event in steps_of(run_here(spec))]
    assert losses[-1] < 0.1 < losses[0]
    request = Request("r", tuple(pair(3)["prompt"]), 0)
    [[answer]] = LocalGenerator(spec.output, device="cpu").generate([request], Sampling(temperature=0.0, max_tokens=60))
    assert (answer.text, answer.finish_reason) == (pair(3)["chosen"][0]["content"], "stop")  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["dpo", "rs"])
def test_lora_is_merged_and_its_adapter_kept(model: Path, tmp_path: Path, method: str) -> None:
    spec = build_spec(model, tmp_path, method=method, lora=Lora(r=4, alpha=8, dropout=0.1))
    losses = [event["loss"] for event in steps_of(run_here(spec))]
    assert losses[-1] < losses[0]
    assert (spec.output / "adapter" / "adapter_model.safetensors").is_file()
    before, after = load_file(model / "model.safetensors"), load_file(spec.output / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all("proj" in name for name in changed)
    LocalGenerator(spec.output, device="cpu").close()


def test_killed_and_resumed_is_as_if_never_killed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = build_spec(model, tmp_path / "whole", max_steps=9, save_every=2)
    run_here(whole)
    spec = build_spec(model, tmp_path / "cut", max_steps=9, save_every=2)
    pids: list[int] = []

    def kill_after_four(event: Progress) -> None:
        if event["event"] == "started":
            pids.append(event["pid"])
        if event["event"] == "saved" and event["step"] == 4:
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        train(spec, kill_after_four)
    assert not spec.output.exists()
    half = spec.work / spec_hash(spec) / "checkpoint-8"
    half.mkdir()
    events: list[Progress] = []
    result = train(spec, events.append)
    assert events[0]["resumed_from"] in (4, 6)
    assert result.steps == 9
    assert [entry["step"] for entry in result.metrics] == list(range(1, 10))
    there = json.loads((whole.output / RECORD_FILE).read_text(encoding="utf-8"))["metrics"]
    assert [entry["num_tokens"] for entry in result.metrics] == [entry["num_tokens"] for entry in there]
    assert weights_digest(result.folder) == weights_digest(whole.output)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dpo", "max_steps": 6},
        {"method": "rs", "max_steps": 7},
        {"method": "dpo", "max_steps": None, "epochs": 2.0, "lora": Lora(r=2, alpha=4, dropout=0.2)},
        {"method": "rs", "max_steps": 7, "batch_size": 3, "gradient_accumulation": 2},
    ],
)
def test_resuming_from_any_checkpoint_gives_the_same_weights(
    model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """24 rows, 3 or 4 steps per epoch: checkpoints lie within epochs, at their ends, and before the last step."""
    spec = build_spec(model, tmp_path, save_every=1, **changes)
    events = run_here(spec)
    digest, total = weights_digest(spec.output), events[0]["steps"]
    kept = {int(path.name.partition("-")[2]): path for path in spec.work.glob("*/checkpoint-*")}
    assert set(kept) == {total - 1, total - 2}
    for step in sorted(kept, reverse=True):
        shutil.rmtree(spec.output)
        events = run_here(spec)
        assert events[0]["resumed_from"] == step
        assert [event["step"] for event in steps_of(events)] == list(range(step + 1, total + 1))
        assert weights_digest(spec.output) == digest
        shutil.rmtree(kept[total - 1])


@pytest.mark.parametrize("method", ["dpo", "rs"])
def test_resuming_at_the_end_of_an_epoch(model: Path, tmp_path: Path, method: str) -> None:
    spec = build_spec(model, tmp_path, method=method, max_steps=8, save_every=3)
    run_here(spec)
    digest = weights_digest(spec.output)
    for newest in (6, 3):
        shutil.rmtree(spec.output)
        events = run_here(spec)
        assert events[0]["resumed_from"] == newest
        assert weights_digest(spec.output) == digest
        shutil.rmtree(spec.work / spec_hash(spec) / "checkpoint-6")


def test_a_checkpoint_of_another_spec_is_left_alone(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=4, save_every=2)
    run_here(spec)
    foreign = spec.model_copy(update={"seed": 5, "output": tmp_path / "other"})
    (foreign.work / spec_hash(foreign)).mkdir(parents=True)
    (spec.work / spec_hash(spec) / "checkpoint-2").rename(foreign.work / spec_hash(foreign) / "checkpoint-2")
    assert run_here(foreign)[0]["resumed_from"] == 0


def killed_at(step: int, spec: TrainSpec) -> None:
    """Train in a real process that is killed once this step's checkpoint is saved."""
    pids: list[int] = []

    def kill(event: Progress) -> None:
        if event["event"] == "started":
            pids.append(event["pid"])
        if event["event"] == "saved" and event["step"] == step:
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        train(spec, kill)
    assert not spec.output.exists()


def test_a_training_is_never_gone_on_with_on_other_pairs_or_another_base(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=4, save_every=1)
    killed_at(2, spec)
    other = shutil.copytree(model, tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + "{# another base #}")
    assert run_here(spec.model_copy(update={"model": other}))[0]["resumed_from"] == 0
    shutil.rmtree(spec.output)
    pairs = spec.data.read_text()
    write(spec.data, [pair(i + 1) for i in range(24)])
    assert run_here(spec)[0]["resumed_from"] == 0
    shutil.rmtree(spec.output)
    spec.data.write_text(pairs)
    assert run_here(spec)[0]["resumed_from"] in (2, 3), "the pairs that it was killed on"


def test_a_damaged_checkpoint_is_passed_over_and_named(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=5, save_every=1)
    run_here(spec)
    digest, folder = weights_digest(spec.output), spec.work / spec_hash(spec)
    for newest, resumed, damage in ((4, 3, "optimizer.pt"), (3, 0, "model.safetensors")):
        shutil.rmtree(spec.output)
        file = folder / f"checkpoint-{newest}" / damage
        file.write_bytes(file.read_bytes()[:-1])
        started = run_here(spec)[0]
        assert started["resumed_from"] == resumed
        assert started["refused"][0] == f"checkpoint-{newest}: damaged: {damage} missing or of another size"
        assert weights_digest(spec.output) == digest
        shutil.rmtree(folder / "checkpoint-4")


def test_two_trainings_never_write_the_same_output(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path)
    spec.work.mkdir()
    with (spec.work / f"{spec_hash(spec)}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another process"):
            train(spec)


def test_a_finished_output_is_returned_at_once_and_never_overwritten(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=1)
    run_here(spec)
    began = time.monotonic()
    assert train(spec).steps == 1
    assert time.monotonic() - began < 1
    with pytest.raises(TrainingError, match="another training"):
        train(spec.model_copy(update={"learning_rate": 1e-3}))
    (spec.output / "training.json").unlink()
    with pytest.raises(TrainingError, match="isn't a finished training"):
        train(spec)


PARENT = """
import sys
from pathlib import Path
from rlrf.backends.training.train import train
from rlrf.backends.training.spec import TrainSpec
train(TrainSpec.model_validate_json(Path(sys.argv[1]).read_text()), lambda event: print(event["event"], event.get("pid"), flush=True))
"""


def test_the_process_dies_with_its_parent(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=100_000)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-c", PARENT, str(tmp_path / "spec.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        name, pid = parent.stdout.readline().split()
        assert name == "started"
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}/stat").exists()


def test_a_failing_process_is_quoted(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", [{**pair(1), "chosen": say("assistant", "apple " * 500)}])
    with pytest.raises(TrainingError, match=r"too_long.*\n.*train\.log"):
        train(build_spec(model, tmp_path))
    assert "TrainingError" in (tmp_path / "out.work" / "train.log").read_text()


def test_a_loss_that_is_no_number_stops(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, method="rs").model_copy(update={"learning_rate": 1e38})
    with pytest.raises(TrainingError, match="lower learning_rate"):
        run_here(spec)
    assert not spec.output.exists()


def test_unusable_rows_are_counted_by_reason(model: Path, tmp_path: Path) -> None:
    rows = [pair(1), pair(2, "apple " * 500), pair(3, "<|end|><|assistant|>me"), pair(4)]
    spec = build_spec(model, tmp_path, data=write(tmp_path / "mixed.jsonl", rows))
    columns, excluded = tokenise(read_rows(spec), spec, load_tokenizer(model))
    assert excluded == {"too_long": 1, "special_tokens": 1}
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(
        ["prompt_ids", "chosen_ids", "rejected_ids"], 2
    )


def test_token_columns_hold_the_rendered_chat_and_its_end(model: Path, tmp_path: Path) -> None:
    tokenizer, row = load_tokenizer(model), pair(5)
    path = write(tmp_path / "one.jsonl", [row])
    for method in ("dpo", "rs"):
        spec = build_spec(model, tmp_path, data=path, method=method)
        columns, _ = tokenise(read_rows(spec), spec, tokenizer)
        if method == "dpo":
            ids, answer = columns["prompt_ids"][0] + columns["chosen_ids"][0], columns["chosen_ids"][0]
            assert columns["rejected_ids"][0][-1] == tokenizer.eos_token_id
        else:
            ids, answer = columns["input_ids"][0], [label for label in columns["labels"][0] if label >= 0]
        assert tokenizer.decode(ids) == tokenizer.apply_chat_template(row["prompt"] + row["chosen"], tokenize=False)
        assert tokenizer.decode(answer) == row["chosen"][0]["content"] + "<|end|>"


def test_parquet_reads_as_jsonl_does(model: Path, tmp_path: Path) -> None:
    rows = [pair(i) for i in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    lines = build_spec(model, tmp_path, data=write(tmp_path / "three.jsonl", rows))
    assert read_rows(lines.model_copy(update={"data": tmp_path / "pairs.parquet"})) == read_rows(lines)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("empty.jsonl", "", "is empty"),
        ("broken.jsonl", json.dumps(pair(1)) + "\n{", "row 2"),
        ("text.jsonl", '{"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}', "row 1: prompt"),
        ("single.jsonl", json.dumps({"prompt": say("user", "a"), "chosen": say("assistant", "b")}), "no 'rejected'"),
        ("pairs.csv", "prompt,chosen", "suffix '.csv'"),
        ("pairs.parquet", "not parquet", "can't be read"),
    ],
)
def test_data_that_is_not_pairs_is_refused(model: Path, tmp_path: Path, name: str, content: str, fault: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TrainingError, match=fault):
        read_rows(build_spec(model, tmp_path, data=tmp_path / name))


def test_missing_files_are_refused_before_anything_starts(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such file"):
        train(build_spec(model, tmp_path, data=tmp_path / "nowhere.jsonl"))
    with pytest.raises(BackendError, match="no such folder"):
        train(build_spec(tmp_path / "nowhere", tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "ppo"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("epochs", 1.0),
        ("max_steps", None),
        ("max_steps", 0),
        ("batch_size", 0),
        ("gradient_accumulation", 0),
        ("beta", 0.0),
        ("sft_weight", -1.0),
        ("warmup_ratio", 1.0),
        ("schedule", "polynomial"),
        ("max_length", 1),
        ("lora", {"r": 0, "alpha": 1}),
        ("lora", {"r": 1, "alpha": 1, "rank": 2}),
        ("seed", -1),
        ("save_every", 0),
        ("rpo_alpha", 1.0),
    ],
)
def test_a_bad_value_is_refused(model: Path, tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        build_spec(model, tmp_path, **{name: value})


def test_a_job_file_says_where_it_is_wrong(model: Path, tmp_path: Path) -> None:
    job = plan(build_spec(model, tmp_path, lora=Lora(r=4, alpha=8)))
    (tmp_path / "job.json").write_text(job.model_dump_json())
    assert read_job(tmp_path / "job.json") == job
    (tmp_path / "job.json").write_text(job.model_dump_json().replace('"r":4', '"r":"four"'))
    with pytest.raises(TrainingError, match=r"lora\.r"):
        read_job(tmp_path / "job.json")


def test_the_hash_is_of_content_and_settings_not_places(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path)
    same = {"output": tmp_path / "elsewhere", "save_every": 5, "log_every": 7}
    assert spec_hash(spec.model_copy(update=same)) == spec_hash(spec)
    for changes in ({"beta": 0.2}, {"seed": 1}, {"max_steps": 7}, {"lora": Lora(r=1, alpha=1)}):
        assert spec_hash(spec.model_copy(update=changes)) != spec_hash(spec)
    other = write(tmp_path / "other.jsonl", [pair(99)])
    assert spec_hash(spec.model_copy(update={"data": other})) != spec_hash(spec)
    rs = spec.model_copy(update={"method": "rs"})
    assert spec_hash(rs.model_copy(update={"beta": 0.2})) == spec_hash(rs)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "dpo"}, "72c92dd961e87fadf3d0f69e71208b43"),
        ({"method": "rs"}, "0d1524f0a23b458a8b76eb8be18610dd"),
        ({"method": "dpo", "lora": {"r": 4, "alpha": 8}}, "83ef0ab838149a9355c613a2b0fb4353"),
        ({"method": "dpo", "sft_weight": 1.0, "schedule": "linear", "seed": 3}, "10d21772dac1c64730cb1d45f5c6f3b9"),
    ],
)
def test_hashes_that_name_checkpoints_on_disk_stay(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    """Fields that came later leave the hash of a spec that doesn't use them alone."""
    header = b'{"w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"ab")
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    fixed = {"model": tmp_path, "data": tmp_path / "pairs.jsonl", "output": tmp_path / "out"}
    values = {"learning_rate": 1e-3, "max_steps": 3, "batch_size": 2, "max_length": 64}
    assert spec_hash(TrainSpec(**fixed, **values, **changes)) == expected
