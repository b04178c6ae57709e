"""Starts, adopts, signals and awaits one container's process through its pod shim."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball import clock
from flyball.errors import FlyballError
from flyball.localcluster.node import procfs

READY_TIMEOUT_S = 10.0
EXIT_POLL_S = 0.2
SETTLE_POLL_S = 0.02
_SHIM = Path(__file__).with_name("podshim.py")


class StartError(FlyballError):
    """The program could not be started; the message is the kernel's."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended: exit ``code`` (128 + signal), ``signal`` or 0, time and CPU used."""

    code: int
    signal: int
    finished_ms: int
    cpu_ns: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Root:
    """A file system view: an empty directory for its root, and mounts as (``ro`` or ``rw``, source, target)."""

    directory: str
    mounts: tuple[tuple[str, str, str], ...]

    def text(self) -> str:
        """What the pod shim reads."""
        return "\n".join([self.directory, *("\t".join(mount) for mount in self.mounts)])


@dataclass(frozen=True, slots=True)
class Loopback:
    """A pod's address, where it notes the ports it listens on, and whether several containers share them."""

    ip: str
    directory: Path
    shared: bool

    def text(self) -> str:
        """What the pod shim reads, and ``of`` again."""
        return f"{self.ip}\t{self.directory}\t{int(self.shared)}"

    @classmethod
    def of(cls, text: str) -> "Loopback":
        ip, directory, shared = text.split("\t")
        return cls(ip, Path(directory), shared == "1")

    def command(self) -> list[str]:
        """The words before a command that give it the same view."""
        return [sys.executable, "-I", "-S", str(_SHIM.with_name("podnet.py")), self.ip, str(self.directory)]


class ContainerProcess:
    """A running container. ``exit`` is set, and ``on_exit`` called, once it is over."""

    def __init__(
        self,
        directory: Path,
        attempt: int,
        numbers: Sequence[int],
        on_exit: "Callable[[ContainerProcess], None] | None",
        popen: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self.directory = directory
        self.attempt = attempt
        self.shim_pid, self.shim_start, self.pid, self.pid_start, self.started_ms = numbers
        self.exit: Exit | None = None
        self.on_exit = on_exit
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._control = -1
        with contextlib.suppress(OSError):
            # Held open as long as we live; its closing tells the shim to continue what we had stopped.
            self._control = os.open(
                directory / f"{attempt}.ctl", os.O_WRONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
            )
        try:
            self._pidfd = os.pidfd_open(self.shim_pid)
        except (AttributeError, OSError):
            self._pidfd = -1
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._shim_ended)
        else:
            self._timer = self._loop.call_later(0.0, self._poll)

    def _poll(self) -> None:
        if self._popen is not None:
            self._popen.poll()
        if procfs.start_ticks(self.shim_pid) == 0:
            self._shim_ended()
        else:
            self._timer = self._loop.call_later(EXIT_POLL_S, self._poll)

    def _shim_ended(self) -> None:
        self.close()
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=1.0)
        self.exit = read_exit(self.directory, self.attempt)
        if self.exit is None:
            # The shim itself was killed: the program cannot write or be counted any more, so it goes too.
            self.signal(signal.SIGKILL)
            message = "the process that keeps this container's log was killed"
            self.exit = Exit(137, int(signal.SIGKILL), clock.now_ms(), 0, message)
        self._ended.set()
        if self.on_exit is not None:
            self.on_exit(self)

    @property
    def running(self) -> bool:
        return self.exit is None

    def signal(self, number: int) -> None:
        """Sends to the program's process group, and to the strays below its shim."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)
        for pid in procfs.tree(self.shim_pid)[1:] if self.running else ():
            with contextlib.suppress(OSError):
                if os.getpgid(pid) != self.pid:
                    os.kill(pid, number)

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    async def wait_for(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        return not self.running

    def close(self) -> None:
        """Stops watching; the program runs on."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._control >= 0:
            os.close(self._control)
            self._control = -1


async def start(
    directory: Path,
    attempt: int,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    on_exit: Callable[[ContainerProcess], None] | None = None,
    log_max_bytes: int | None = None,
    root: "Root | None" = None,
    loopback: "Loopback | None" = None,
    stdin: str = "",
    cgroups: Sequence[Path] = (),
) -> ContainerProcess:
    """Starts ``argv`` (``argv[0]`` an absolute path) in a session of its own.

    Args:
        root: its file system, in a mount namespace of its own; None: the machine's.
        loopback: the pod's address where it would listen on every one; None: it listens on every one.
        stdin: ``pipe`` or ``tty``, and ``once`` when it ends with its first client; "": the program has no input.
        cgroups: the groups that it enters before it begins.

    Raises:
        StartError: it could not be started.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ready_read, ready_write = os.pipe()
    starting = os.open(directory / f"{attempt}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(starting, fcntl.LOCK_EX)  # the shim has the same lock, and keeps it when this process dies
    try:
        os.set_blocking(ready_read, False)
        told = f"{ready_write},{starting}"
        command = [sys.executable, "-I", "-S", str(_SHIM), str(directory), str(attempt), told, cwd, *argv]
        shim_env = dict(env)
        if root is not None:
            shim_env["FLYBALL_ROOT"] = root.text()
        if loopback is not None:
            shim_env["FLYBALL_NET"] = loopback.text()
        if cgroups:
            shim_env["FLYBALL_CGROUPS"] = "\n".join(map(str, cgroups))
        if stdin:
            shim_env["FLYBALL_STDIN"] = stdin
        if log_max_bytes is not None:
            shim_env["FLYBALL_LOG_MAX_BYTES"] = str(log_max_bytes)
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220 - a vfork of some milliseconds; asyncio's own would wait for it
                command,
                env=shim_env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=ready_write,  # until it runs: why it cannot
                start_new_session=True,
                pass_fds=(ready_write, starting),
                cwd="/",
            )
        except (OSError, ValueError) as exc:
            raise StartError(f"{argv[0]}: {exc}") from exc
        finally:
            os.close(ready_write)
        said = await _read_answer(ready_read, READY_TIMEOUT_S)
    finally:
        os.close(ready_read)
        os.close(starting)
    last = said.strip().rpartition("\n")[2]
    word, _, rest = last.partition(" ")
    if word != "ok":
        ended: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = popen.wait(timeout=1.0)
        how = f"by signal {-ended}" if ended and ended < 0 else f"with code {ended}"
        raise StartError((rest if word == "error" else last) or f"the pod shim ended {how} before the program began")
    return ContainerProcess(directory, attempt, [int(field) for field in rest.split()], on_exit, popen)


async def settle(directory: Path) -> None:
    """Waits for the shims of attempts that a node began and did not live to see run; call it before ``adopt``.

    Afterwards each attempt has a ``.run`` or an ``.exit``, or it never began and has left no trace.
    """
    deadline = clock.monotonic_s() + READY_TIMEOUT_S
    for path in directory.glob("*.lock"):
        while (locked := _is_locked(path)) and clock.monotonic_s() < deadline:
            await asyncio.sleep(SETTLE_POLL_S)
        attempt = int(path.stem)
        if not locked and read_run(directory, attempt) is None and read_exit(directory, attempt) is None:
            forget_attempt(directory, attempt)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


async def _read_answer(fd: int, timeout_s: float) -> str:
    """``ok`` and the numbers of what runs; else all that the shim said before it ended."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        try:
            piece = os.read(fd, 4096)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        data.extend(piece)
        if (not piece or (data.startswith(b"ok ") and b"\n" in data)) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await asyncio.wait_for(done, timeout_s)
    except TimeoutError:
        return "error the pod shim did not answer in time"
    finally:
        loop.remove_reader(fd)
    return data.decode(errors="replace")


def read_exit(directory: Path, attempt: int) -> Exit | None:
    """The exit that the shim wrote, or None."""
    try:
        first, _, message = (directory / f"{attempt}.exit").read_text().partition("\n")
        code, number, finished_ms, cpu_us = (int(field) for field in first.split())
    except (OSError, ValueError):
        return None
    return Exit(code, number, finished_ms, cpu_us * 1000, message.strip())


def read_run(directory: Path, attempt: int) -> list[int] | None:
    """``[shim_pid, shim_start, pid, pid_start, started_ms]`` of an attempt, or None."""
    try:
        numbers = [int(field) for field in (directory / f"{attempt}.run").read_text().split()]
    except (OSError, ValueError):
        return None
    return numbers if len(numbers) == 5 else None


def adopt(
    directory: Path, attempt: int, on_exit: Callable[[ContainerProcess], None] | None = None
) -> ContainerProcess | None:
    """The attempt's process when it still runs (the same pid and start time), continued if it was stopped."""
    numbers = read_run(directory, attempt)
    if numbers is None or (directory / f"{attempt}.exit").exists():
        return None
    shim_pid, shim_start, pid, pid_start, started_ms = numbers
    if not procfs.same_process(shim_pid, shim_start, started_ms):
        if procfs.same_process(pid, pid_start, started_ms):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # without its shim it has no log and no exit code
        return None
    process = ContainerProcess(directory, attempt, numbers, on_exit)
    process.signal(signal.SIGCONT)
    return process


def attempts(directory: Path) -> list[int]:
    """Numbers of the attempts that left a trace, oldest first."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if match := re.match(r"(\d+)\.(?:run|exit|log)", name):
                found.add(int(match[1]))
    return sorted(found)


def forget_attempt(directory: Path, attempt: int) -> None:
    """Removes an attempt's files, logs included."""
    for path in directory.glob(f"{attempt}.*"):
        with contextlib.suppress(OSError):
            path.unlink()
