# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-not-found, type-arg, arg-type"
# ruff: noqa: UP031
"""A container's own view of the loopback, without a network namespace: any program may listen on every address.

A seccomp filter hands each ``bind`` of the program, and each ``connect`` where containers share a pod, to the pod shim
(seccomp_unotify(2)). The shim makes the call itself, on the same socket: what would listen on every address, or on
localhost, listens on the pod's address; a connection to localhost goes to the pod's address when something of the pod
listens there. Every other call goes on as it is. It works for every program, static ones too, and needs no privilege.

Imported by the pod shim, so it is as small as that. Run as ``python -I -S podnet.py IP DIRECTORY PROGRAM [ARG...]`` it
does the same for a command beside the container (exec, probes).
"""

import _ctypes
import _signal
import _socket
import errno
import fcntl
import os
import select
import sys
from _struct import calcsize, pack, unpack, unpack_from
from _thread import start_new_thread

# bind, connect, seccomp, the number of the architecture in a filter's data.
_CALLS = {"x86_64": (49, 42, 317, 0xC000003E), "aarch64": (200, 203, 277, 0xC00000B7)}
_PIDFD_GETFD = 438
_NO_NEW_PRIVS, _SET_MODE_FILTER = 38, 1
_NEW_LISTENER, _WAIT_KILLABLE = 8, 32
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_TO_LISTENER, _ALLOW = 0x7FC00000, 0x7FFF0000
_NOTICE, _ANSWER = "=QIIiIQ6Q", "=QqiI"
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_ADDRESS_MAX = 128
ANY, LOCAL = b"\0" * 4, b"\x7f\0\0\1"
ANY6, LOCAL6, MAPPED = b"\0" * 16, b"\0" * 15 + b"\1", b"\0" * 10 + b"\xff\xff"

_libc = _ctypes.dlopen(None, 0)


class _Byte(_ctypes._SimpleCData):
    _type_ = "B"


def call(name, *args):
    return _ctypes.call_function(_ctypes.dlsym(_libc, name), args)


def install(connects: bool) -> int:
    """Sets the filter on this process and all that it starts; the listener, or -1 where that cannot be had."""
    known = _CALLS.get(os.uname().machine)
    if not sys.platform.startswith("linux") or known is None:
        return -1
    bind, connect, seccomp, architecture = known
    wanted = [bind, connect] if connects else [bind]

    def step(code, value, yes=0, no=0):
        return code | yes << 16 | no << 24 | value << 32

    code = [step(_LOAD, 4), step(_EQUALS, architecture, 0, len(wanted) + 1), step(_LOAD, 0)]
    code += [step(_EQUALS, number, len(wanted) - at) for at, number in enumerate(wanted)]
    code += [step(_RETURN, _ALLOW), step(_RETURN, _TO_LISTENER)]
    steps = (_Byte * (8 * len(code))).from_buffer_copy(pack("=%dQ" % len(code), *code))
    program = pack("=QQ", len(code), _ctypes.addressof(steps))  # struct sock_fprog
    call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        listener: int = call("syscall", seccomp, _SET_MODE_FILTER, flags, program)
        if listener >= 0:
            return listener
    return -1


def take(pid: int, fd: int) -> int:
    """A copy of another process' descriptor; -1 where that is not allowed."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    copy: int = call("syscall", _PIDFD_GETFD, pidfd, fd, 0)
    os.close(pidfd)
    return copy


class Loopback:
    """Answers the calls of one child. ``directory`` has a file for each port at which the pod listens."""

    def __init__(self, ip, directory):
        self.listener = -1
        self._number, self._tell = os.pipe()
        self._wait, self._go = os.pipe()
        self.ip = ip
        self.own = _socket.inet_aton(ip)
        self.directory = directory
        self.bind_number = _CALLS[os.uname().machine][0]

    def give(self, connects):
        """In the child: sets the filter, and waits until the parent has its listener."""
        os.close(self._go)
        os.write(self._tell, b"%d" % install(connects))
        os.read(self._wait, 1)

    def take(self, pid):
        """In the parent: the child's listener; it stays -1 when there is none."""
        os.close(self._tell)
        number = os.read(self._number, 16)
        self.listener = take(pid, int(number)) if number else -1
        os.write(self._go, b"1")
        for fd in (self._number, self._wait, self._go):
            os.close(fd)

    def answer(self):
        """The one call that waits at the listener."""
        notice = bytearray(calcsize(_NOTICE))
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notice)
        except OSError:
            return  # whoever called is gone
        number, thread, _, call_number, _, _, fd, address, size = unpack(_NOTICE, notice)[:9]
        is_bind = call_number == self.bind_number
        try:
            with open("/proc/%d/mem" % thread, "rb", 0) as memory:
                ip, port = address_of(os.pread(memory.fileno(), min(size, _ADDRESS_MAX), address))
            # One that knows the pod's address and takes it is noted, too.
            concerns = ip in (LOCAL, ANY, self.own) if is_bind else ip == LOCAL and os.path.exists(self.mark(port))
            # Port 0 stays as it is: it never collides, and a client's socket must be able to leave the loopback.
            copy = take(process_of(thread), fd & 0xFFFFFFFF) if concerns and port else -1
            sock = _socket.socket(fileno=copy) if copy >= 0 else None
        except OSError:
            sock = None
        if sock is None:
            self.send(number, 0, _CONTINUE)
            return
        work = (self.finish, (number, sock, self.bind if is_bind else self.connect, port, is_bind and ip == LOCAL))
        if not is_bind and os.get_blocking(sock.fileno()):
            start_new_thread(*work)  # it may wait for as long as the pod's queue is full
        else:
            work[0](*work[1])

    def bind(self, sock, port):
        try:
            if sock.family == _socket.AF_INET:
                sock.bind((self.ip, port))
            elif sock.getsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY):
                sock.bind(("::1", 0))  # the IPv6 half of a pair: the IPv4 half serves the pod's address
                return
            else:
                sock.bind(("::ffff:" + self.ip, port))
        except OSError:
            if sock.getsockname()[1] != port:  # a signal may have made the program call twice
                raise
        os.close(os.open(self.mark(port), os.O_CREAT | os.O_WRONLY, 0o600))

    def connect(self, sock, port):
        sock.connect((self.ip if sock.family == _socket.AF_INET else "::ffff:" + self.ip, port))

    def mark(self, port):
        return "%s/%d" % (self.directory, port)

    def finish(self, number, sock, act, port, local):
        """Makes the call, and tells the program how it ended."""
        failed = 0
        try:
            act(sock, port)
        except OSError as exc:
            failed = exc.errno or errno.EINVAL
        sock.close()
        if local and failed == errno.EADDRINUSE:
            self.send(number, 0, _CONTINUE)  # the pod's address has that port; this one is for the machine's loopback
        else:
            self.send(number, failed)

    def send(self, number, failed, flags=0):
        try:
            fcntl.ioctl(self.listener, _SEND, pack(_ANSWER, number, 0, -failed, flags))
        except OSError:
            pass  # the program was killed meanwhile


def address_of(raw):
    """The IPv4 address (four bytes; of an IPv6 one that means the same) and port of a sockaddr; b"" and 0 of others."""
    if len(raw) < 8:
        return b"", 0
    family, port = unpack_from("=H", raw)[0], unpack_from(">H", raw, 2)[0]
    if family == _socket.AF_INET:
        return raw[4:8], port
    if family != _socket.AF_INET6 or len(raw) < 24:
        return b"", 0
    ip = raw[8:24]
    return {ANY6: ANY, LOCAL6: LOCAL}.get(ip) or (ip[12:] if ip[:12] == MAPPED else b""), port


def process_of(thread):
    """The process of a thread."""
    with open("/proc/%d/status" % thread, "rb") as file:
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line.split()[1])
    return thread


def main():
    """A command as a child, its signals its own; ends as it ends."""
    loopback, argv = Loopback(*sys.argv[1:3]), sys.argv[3:]
    pid = os.fork()
    if pid == 0:
        try:
            loopback.give(True)
            os.execvp(argv[0], argv)
        except OSError as exc:
            os.write(2, ("%s: %s\n" % (argv[0], exc.strerror)).encode())
        finally:
            os._exit(127)
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    for fd in (0, 1, 2):
        os.close(fd)  # the command's alone: a pipe ends with it
    loopback.take(pid)
    ended = os.pidfd_open(pid)
    poller = select.poll()
    for fd in (ended, loopback.listener):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    while True:
        events = dict(poller.poll())
        if ended in events:
            break
        loopback.answer()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        _signal.signal(-code, _signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
