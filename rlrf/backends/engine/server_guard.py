"""The guard between a run and a server that it starts: whatever dies, and however it dies, the server goes with it.

Run by its path, `python -I -S server_guard.py PARENT GRACE_SECONDS SCRATCH COMMAND...`, as the leader of a session of its
own, so it imports nothing but the standard library. Standard input is a pipe from the parent: a byte asks for the end of
the server, its closing means that the parent is dead. When the server, the parent or the time is over, all that is left
of the session is killed and the folder SCRATCH removed. The exit code is the server's, 128 + n where signal n killed it.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 1.0
KILL_SECONDS = 30.0
"""A process that holds a GPU may take its time to die."""
TRACKER_SECONDS = 1.0
"""Python's resource trackers remove the shared memory of those who can't any more, then end by themselves."""


def main(parent: int, grace: float, scratch: str, command: list[str]) -> int:
    """Run the command until somebody's end."""
    woken = _wake_on(signal.SIGCHLD, signal.SIGTERM)
    server = _start(command)
    code, deadline = None, None
    while code is None and os.getppid() == parent and (deadline is None or time.monotonic() < deadline):
        ready, _, _ = select.select([*([0] if deadline is None else []), woken], [], [], WATCH_SECONDS)
        numbers = os.read(woken, 64) if woken in ready else b""
        if 0 in ready and not os.read(0, 64):
            break
        if deadline is None and (0 in ready or signal.SIGTERM in numbers):
            deadline = time.monotonic() + grace
            os.kill(server, signal.SIGTERM)
        code = _exit_code(server)
    kill_session(os.getsid(0))
    shutil.rmtree(scratch, ignore_errors=True)
    return 128 + signal.SIGKILL if code is None else code


def kill_session(session: int) -> list[int]:
    """Kill all processes of a session but the caller; those that are still there after KILL_SECONDS are returned."""
    left, now = session_members(session), time.monotonic()
    deadline, patience = now + KILL_SECONDS, now + TRACKER_SECONDS
    while left and now < deadline:
        others = [pid for pid in left if not _is_tracker(pid)]
        if others:
            patience = now + TRACKER_SECONDS
        for pid in others or (left if now > patience else []):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        left, now = session_members(session), time.monotonic()
    return left


def session_members(session: int) -> list[int]:
    """The processes of a session that still run, the caller left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                state, _, _, sid = file.read().rpartition(b")")[2].split()[:4]
                if int(sid) == session and state not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def _wake_on(*numbers: signal.Signals) -> int:
    """The end of a pipe that gets a byte with the number of every such signal."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return woken


def _start(command: list[str]) -> int:
    """Start the server; it dies with this process, also by kill -9. Its own children are the parent's business then."""
    libc, guard = ctypes.CDLL(None), os.getpid()
    server = os.fork()
    if server:
        return server
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execv(command[0], command)  # noqa: S606  # an argument list, no shell
    except OSError as error:
        print(f"{command[0]!r}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201  # standard error is the log
    os._exit(127)


def _exit_code(server: int) -> int | None:
    pid, status = os.waitpid(server, os.WNOHANG)
    if not pid:
        return None
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _is_tracker(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"resource_tracker" in file.read()
    return False


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
