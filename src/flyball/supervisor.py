"""The parent of the three processes: starts them, restarts them with back-off, stops them in order.

It imports no part of the product, so that it stays small. A child tells that it is ready, or why it cannot be,
with one line on the pipe whose number is in FLYBALL_READY_FD. It ends when its standard input closes, which
happens when the parent dies; pods are not children of these processes' life and go on.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from flyball.clock import monotonic_s
from flyball.errors import ConfigError, UpstreamError

READY_FD = "FLYBALL_READY_FD"
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0  # a process that ran this long restarts at once
LOG_MAX_BYTES = 10 << 20


def lock_data_dir(data_dir: Path) -> int:
    """Takes the directory for this process; the lock is held while the returned descriptor is open.

    Raises:
        ConfigError: the directory cannot be written, or another ``flyball up`` holds it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (data_dir, *(one for one in data_dir.iterdir() if one.is_dir())):
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise ConfigError(
            f"data directory {exc.filename}: {exc.strerror}; make it writable or name another with --data-dir"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise ConfigError(
            f"data directory {data_dir} is in use by another flyball; stop that one or name another with --data-dir"
        ) from exc
    return descriptor


def report_ready(error: str | None = None) -> None:
    """Called once by a child: it serves, or it cannot and says why."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        with contextlib.suppress(OSError), os.fdopen(int(descriptor), "w") as pipe:
            pipe.write("ready\n" if error is None else f"error {error}\n")


@dataclass(slots=True)
class _Process:
    name: str
    arguments: list[str]
    first_arguments: list[str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    child: asyncio.subprocess.Process | None = None
    restarts: int = 0
    error: str = ""
    stdin_write: int = -1


class Supervisor:
    """Runs ``flyball process NAME ...`` for each name, in the order given, and stops them in reverse."""

    def __init__(self, data_dir: Path, on_event: Callable[[str], None]) -> None:
        self.data_dir = data_dir
        self.on_event = on_event
        self._processes: list[_Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def add(self, name: str, arguments: list[str], first_arguments: list[str] | None = None) -> None:
        """``first_arguments`` are passed on the first start only."""
        self._processes.append(_Process(name, arguments, first_arguments or []))

    async def start(self, timeout_s: float = 30.0) -> None:
        """Returns when every process is ready.

        Raises:
            ConfigError: a process cannot start; the message is its own.
            UpstreamError: it was not ready in time.
        """
        (self.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
        for process in self._processes:
            self._tasks.append(asyncio.create_task(self._keep(process), name=f"keep {process.name}"))
        deadline = monotonic_s() + timeout_s
        for process in self._processes:
            while not process.ready.is_set():
                if process.error:
                    raise ConfigError(process.error)
                try:
                    await asyncio.wait_for(process.ready.wait(), 0.05)
                except TimeoutError:
                    if monotonic_s() > deadline:
                        raise UpstreamError(
                            f"{process.name} was not ready after {timeout_s:.0f} s; "
                            f"see {self.data_dir / 'logs' / (process.name + '.log')}"
                        ) from None

    async def stop(self, grace_s: float = 10.0) -> None:
        """Ends the processes, last started first."""
        self._stopping = True
        for process in reversed(self._processes):
            child = process.child
            if child is not None and child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(child.wait(), grace_s)
                except TimeoutError:
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
                    await child.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def pids(self) -> dict[str, int]:
        return {p.name: p.child.pid for p in self._processes if p.child is not None and p.child.returncode is None}

    def statistics(self) -> dict[str, int]:
        """Restarts by process."""
        return {p.name: p.restarts for p in self._processes}

    async def _keep(self, process: _Process) -> None:
        backoff_s = 0.2
        while not self._stopping:
            started_s = monotonic_s()
            await self._run_once(process)
            if self._stopping or (process.error and not process.ready.is_set()):
                return
            backoff_s = 0.2 if monotonic_s() - started_s > STEADY_S else min(backoff_s * 2, BACKOFF_MAX_S)
            process.restarts += 1
            code = process.child.returncode if process.child else None
            self.on_event(f"{process.name} ended ({_describe(code)}); starting it again")
            await asyncio.sleep(backoff_s)

    async def _run_once(self, process: _Process) -> None:
        try:
            log = _open_log(self.data_dir / "logs" / f"{process.name}.log")
        except OSError as exc:
            process.error = f"{process.name}: its log {exc.filename} cannot be written ({exc.strerror})"
            return
        ready_read, ready_write = os.pipe()
        life_read, life_write = os.pipe()
        arguments = [*process.arguments, *([] if process.restarts else process.first_arguments)]
        with log:
            process.child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "flyball",
                "process",
                process.name,
                *arguments,
                stdin=life_read,
                stdout=log,
                stderr=log,
                pass_fds=(ready_write,),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops them in order
                env={**os.environ, READY_FD: str(ready_write)},
            )
        os.close(life_read)
        os.close(ready_write)
        try:
            await self._read_ready(process, ready_read)
            await process.child.wait()
        finally:
            os.close(life_write)

    async def _read_ready(self, process: _Process, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(descriptor, "rb")
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            line = (await reader.readline()).decode().strip()
        finally:
            transport.close()
        if line == "ready":
            process.ready.set()
        elif line.startswith("error "):
            process.error = line.removeprefix("error ")
            if process.ready.is_set():
                self.on_event(f"{process.name}: {process.error}")
        elif not process.ready.is_set() and process.restarts >= 3:
            process.error = (
                f"{process.name} ended at once, {process.restarts + 1} times; see its log in {self.data_dir}/logs"
            )


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _describe(code: int | None) -> str:
    if code is None:
        return "unknown"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
