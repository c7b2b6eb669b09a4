"""Who a process is: enough to tell, later and elsewhere, whether it still runs, without a clock and despite reused pids."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Process:
    """A process on a host. `mark` is "boot|pid namespace|start": what makes the pid mean something. Parts that the system
    doesn't tell, as on macOS, are empty."""

    host: str
    pid: int
    mark: str = "||"

    def __str__(self) -> str:
        return f"PID {self.pid} on {self.host}"


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    state = _state(pid)
    return Process(socket.gethostname(), pid, "|".join((_boot(), _namespace(), state[1] if state else "")))


def unmarked() -> str:
    """The mark of a process of which only the pid is known: it is taken to be one of this system."""
    return f"{_boot()}|{_namespace()}|"


def is_gone(one: Process) -> bool:
    """Whether it is known here that this process has ended. False where that can't be known: another host, boot, container."""
    boot, namespace, start = one.mark.split("|")
    if (one.host, boot, namespace) != (socket.gethostname(), _boot(), _namespace()):
        return False
    try:
        os.kill(one.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    state = _state(one.pid)
    return state is not None and (state[0] in "ZX" or (bool(start) and state[1] != start))


def before_the_boot(one: Process) -> bool:
    """Whether it ran on a host of this name before the system was started."""
    boot = one.mark.split("|")[0]
    return one.host == socket.gethostname() and bool(boot) and bool(_boot()) and boot != _boot()


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink(_NAMESPACE)
    except OSError:
        return ""


def _state(pid: int) -> tuple[str, str] | None:
    """State and start of a process, in ticks since boot; None where the system doesn't tell. See proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]
