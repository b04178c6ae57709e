# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-not-found, arg-type, union-attr"
# ruff: noqa: UP031
"""Keeps one container's process: its parent, its log writer, the keeper of its exit code.

Run as ``python -I -S podshim.py DIRECTORY ATTEMPT READY_FD,LOCK_FD CWD PROGRAM [ARG...]`` with the container's own
environment, in a session of its own, so that the container outlives the node process. Files in DIRECTORY:

- ``ATTEMPT.lock``: locked until there is a ``.run`` or an ``.exit``; of a node that died meanwhile the next one waits
- ``ATTEMPT.run``: ``shim_pid shim_start pid pid_start started_ms``, written once the program runs
- ``ATTEMPT.log``, ``.log.1`` ... ``.log.4``: CRI lines, ``2026-01-02T03:04:05.678901234Z stdout F text``
- ``ATTEMPT.ctl``: a FIFO that the node holds open for writing; when the node dies the program is continued,
  because the node's cpu limiter may have stopped it
- ``ATTEMPT.exit``: ``code signal finished_ms cpu_us`` and a line of text, when it is over

It imports as little as it can: one of these lives beside every container.
"""

import _signal as signal
import os
import select
import sys
import time

LOG_MAX_BYTES = int(os.environ.pop("FLYBALL_LOG_MAX_BYTES", "") or 10 << 20)
ROOT = os.environ.pop("FLYBALL_ROOT", "")  # the new root's directory, then a line for each mount: mode, source, target
NET = os.environ.pop("FLYBALL_NET", "")  # the pod's address, the directory of its ports, and 1 when containers share it
CGROUPS = os.environ.pop("FLYBALL_CGROUPS", "").splitlines()  # the groups that hold the program to its limits
STDIN = os.environ.pop("FLYBALL_STDIN", "").split()  # "pipe" or "tty", and "once", of a container that wants an input
LOG_FILES = 5
LINE_MAX_BYTES = 16 << 10
READ_BYTES = 64 << 10
LINES_PER_WRITE = 256  # a write is never split over two files


def start_ticks(pid):
    """Field 22 of /proc/PID/stat, which with the pid names a process for ever; 0 where there is no /proc."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def write_whole(path, text):
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
    os.rename(temporary, path)


class Log:
    """The log file and its rotation. A full disk loses lines, never the program."""

    def __init__(self, path):
        self.path = path
        self.fd = -1
        self.size = 0
        self.open()

    def open(self):
        try:
            self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self.size = os.fstat(self.fd).st_size
        except OSError:
            self.fd = -1

    def rotate(self):
        os.close(self.fd)
        for number in range(LOG_FILES - 1, 0, -1):
            older = self.path if number == 1 else "%s.%d" % (self.path, number - 1)
            try:
                os.rename(older, "%s.%d" % (self.path, number))
            except OSError:
                pass
        self.open()

    def write(self, data):
        if self.fd < 0:
            self.open()
        if self.fd < 0:
            return
        if self.size and self.size + len(data) > LOG_MAX_BYTES:
            self.rotate()
        try:
            self.size += os.write(self.fd, data)
        except OSError:
            pass


class Stream:
    """One of the program's two outputs, cut into lines."""

    def __init__(self, fd, name, log, attachments):
        self.fd = fd
        self.name = name
        self.log = log
        self.attachments = attachments
        self.rest = b""
        os.set_blocking(fd, False)

    def stamp(self, kind):
        now = time.time_ns()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000000000))
        return ("%s.%09dZ %s %s " % (second, now % 1000000000, self.name, kind)).encode()

    def read(self):
        """False once every writer has closed it."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data and self.attachments:
            self.attachments.show(1 if self.name == "stdout" else 2, data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        out = []
        if lines:
            full, part = self.stamp("F"), self.stamp("P")
            for line in lines:
                while len(line) > LINE_MAX_BYTES:
                    out.append(part + line[:LINE_MAX_BYTES])
                    line = line[LINE_MAX_BYTES:]
                out.append(full + line)
        while len(self.rest) > LINE_MAX_BYTES:
            out.append(self.stamp("P") + self.rest[:LINE_MAX_BYTES])
            self.rest = self.rest[LINE_MAX_BYTES:]
        if not data and self.rest:
            out.append(self.stamp("F") + self.rest)
            self.rest = b""
        for first in range(0, len(out), LINES_PER_WRITE):
            self.log.write(b"\n".join(out[first : first + LINES_PER_WRITE]) + b"\n")
        return bool(data)

    def drain(self):
        """What is still in the pipe; a survivor that keeps writing cannot hold us here."""
        for _ in range(64):
            before = time.time_ns()
            try:
                if not select.select([self.fd], [], [], 0)[0] or not self.read():
                    break
            except (OSError, ValueError):
                break
            if time.time_ns() - before > 1000000000:
                break
        if self.rest:
            self.log.write(self.stamp("F") + self.rest + b"\n")


def become_subreaper():
    """Daemons that the program leaves behind come to us, so that they are counted, limited and ended with it."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import _ctypes

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")
        _ctypes.call_function(prctl, (36, 1, 0, 0, 0))  # PR_SET_CHILD_SUBREAPER
    except (ImportError, OSError, AttributeError):
        pass


def children():
    me = os.getpid()
    try:
        with open("/proc/%d/task/%d/children" % (me, me), "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def send(pid, number):
    try:
        os.killpg(pid, number)
    except OSError:
        pass


def signal_all(pid, number):
    send(pid, number)
    for child in children():
        if child != pid:
            try:
                os.kill(child, number)
            except OSError:
                pass


def start(cwd, argv, out, err, attachments):
    """The child's pid, why it cannot be started, and who answers for its addresses."""
    failed, tell = os.pipe()
    loopback = beside("podnet").Loopback(*NET.split("\t")[:2]) if NET else None
    pid = os.fork()
    if pid == 0:
        stage = "start"
        try:
            os.setsid()
            for group in CGROUPS:
                stage = group
                with open(group + "/cgroup.procs", "w") as file:
                    file.write("0")
            if attachments:
                stage = "terminal"
                attachments.become()
            os.dup2(attachments.input if attachments else os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            # Python ignores SIGPIPE, and what is ignored stays so across exec.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if ROOT:
                stage = "mounts"
                enter_root()
            if loopback:
                stage = "network"
                loopback.give(NET.endswith("\t1"))
            stage = "workingDir %s" % cwd
            os.chdir(cwd)
            stage = argv[0]
            os.execve(argv[0], argv, os.environ)
        except BaseException as exc:
            os.write(tell, ("%s: %s" % (stage, getattr(exc, "strerror", None) or exc)).encode(errors="replace"))
        finally:
            os._exit(127)
    os.close(tell)
    if loopback:
        loopback.take(pid)
    trouble = b""
    while True:
        piece = os.read(failed, 4096)
        if not piece:
            break
        trouble += piece
    os.close(failed)
    if trouble:
        os.waitpid(pid, 0)
        return None, trouble.decode(errors="replace"), None
    return pid, "", loopback


def beside(name):
    """A module of this directory."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    return __import__(name)


def enter_root():
    """Gives the program its volumes at their places."""
    new, *lines = ROOT.split("\n")
    beside("podroot").enter(new, [line.split("\t") for line in lines], os.environ.get("HOSTNAME") or "localhost")


def open_control(path):
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1


def reap(main):
    """(the main process' wait status or None, cpu microseconds of all that ended)."""
    status, cpu_us = None, 0
    while True:
        try:
            pid, ended, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        cpu_us += int((usage.ru_utime + usage.ru_stime) * 1e6)
        if pid == main:
            status = ended
    return status, cpu_us


def main():
    directory, attempt, told, cwd = sys.argv[1:5]
    ready, lock = map(int, told.split(","))
    argv = sys.argv[5:]
    base = os.path.join(directory, attempt)
    become_subreaper()
    log = Log(base + ".log")
    attachments = (
        beside("podattach").Attachments(directory, attempt, STDIN[0] == "tty", "once" in STDIN) if STDIN else None
    )
    if attachments and attachments.tty:
        (out_read, out_write), (err_read, err_write) = (attachments.output, attachments.input), (-1, attachments.input)
    else:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
    os.set_inheritable(ready, False)
    os.set_inheritable(lock, False)
    try:
        os.mkfifo(base + ".ctl", 0o600)
    except OSError:
        pass
    control = open_control(base + ".ctl")
    started_ms = time.time_ns() // 1000000
    pid, trouble, loopback = start(cwd, argv, out_write, err_write, attachments)
    for fd in {out_write, err_write, attachments.input if attachments else out_write}:
        os.close(fd)
    if pid is None:
        write_whole(base + ".exit", "128 0 %d 0\n%s\n" % (time.time_ns() // 1000000, trouble))
        os.write(ready, ("error %s\n" % trouble).encode(errors="replace"))
        return
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        pass
    run = "%d %d %d %d %d" % (os.getpid(), start_ticks(os.getpid()), pid, start_ticks(pid), started_ms)
    write_whole(base + ".run", run + "\n")
    os.close(lock)
    try:
        os.write(ready, ("ok %s\n" % run).encode())
        os.close(ready)
    except OSError:
        pass  # the node died meanwhile; it will find the .run file
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the program's end ends us
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)

    outputs = ((out_read, "stdout"), (err_read, "stderr"))
    streams = {fd: Stream(fd, name, log, attachments) for fd, name in outputs if fd >= 0}
    poller = select.poll()
    listener = loopback.listener if loopback else -1
    door = attachments.listener.fileno() if attachments else -1
    for fd in (*streams, pidfd, control, listener, door):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    status, cpu_us = None, 0
    while status is None:
        for fd, _event in poller.poll(60000 if pidfd >= 0 else 100):
            if fd in streams:
                if not streams[fd].read():
                    poller.unregister(fd)
            elif fd == listener:
                loopback.answer()
            elif fd == door:
                attachments.accept()
            elif fd == control:
                # The node has gone: a program that its limiter had stopped must not stay so.
                signal_all(pid, signal.SIGCONT)
                poller.unregister(control)
                os.close(control)
                control = open_control(base + ".ctl")
                if control >= 0:
                    poller.register(control, select.POLLIN)
        status, used = reap(pid)
        cpu_us += used
    finished_ms = time.time_ns() // 1000000
    # As in a container, nothing outlives the first process.
    for _ in range(100):
        send(pid, signal.SIGKILL)
        left = children()
        for child in left:
            try:
                os.kill(child, signal.SIGKILL)
            except OSError:
                pass
        cpu_us += reap(pid)[1]
        if not left:
            break
        time.sleep(0.01)
    for stream in streams.values():
        stream.drain()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + number if number else os.WEXITSTATUS(status)
    write_whole(base + ".exit", "%d %d %d %d\n\n" % (code, number, finished_ms, cpu_us))
    for ending in (".ctl", ".sock", ".lock"):
        try:
            os.unlink(base + ending)
        except OSError:
            pass


if __name__ == "__main__":
    main()
