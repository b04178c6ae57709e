# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-not-found, attr-defined"
# ruff: noqa: UP031
"""A container whose manifest wants an input (``stdin``, ``tty``): the clients that are attached to it.

Imported by the pod shim for such containers only. It listens on the Unix socket ``ATTEMPT.sock``. What clients and shim
say is a length of four bytes and then a message of ``channel.k8s.io``: its first byte names the channel. Every client
sees the output as it comes, without waiting for the end of a line.
"""

import _socket
import fcntl
import os
import select
import termios
from _struct import pack, unpack
from _thread import start_new_thread

STDIN, STDOUT, RESIZE, CLOSE = 0, 1, 4, 255
MESSAGE_MAX_BYTES = 1 << 20
SEND_TIMEOUT_S = 10  # a client that does not read holds the program up for that long; then it is cut off


def short(directory, name):
    """A path of a socket that fits its limit of 108 bytes; the directory must stay open."""
    return "/proc/self/fd/%d/%s" % (os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name)


class Attachments:
    """The program's input, its terminal if it has one, and who is attached.

    ``input`` is the program's end of its input; with ``tty`` it is its output too, and ``output`` ours to read.
    """

    def __init__(self, directory, attempt, tty, once):
        self.tty, self.once = tty, once
        if tty:
            self.output, self.input = os.openpty()
            self.writes = os.dup(self.output)
        else:
            self.input, self.writes = os.pipe()
        self.clients = []
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.listener.bind(short(directory, "%s.sock" % attempt))
        self.listener.listen(16)

    def become(self):
        """In the child, which leads its session: the terminal is its own."""
        if self.tty:
            fcntl.ioctl(self.input, termios.TIOCSCTTY, 0)

    def accept(self):
        fd, _ = self.listener._accept()
        client = _socket.socket(fileno=fd)
        client.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, pack("@ll", SEND_TIMEOUT_S, 0))
        self.clients.append(client)
        start_new_thread(self.obey, (client,))

    def show(self, channel, data):
        """Output, to all."""
        message = pack("=IB", len(data) + 1, channel) + data
        for client in self.clients[:]:
            try:
                client.sendall(message)
            except OSError:
                self.forget(client)

    def obey(self, client):
        """One client's input, until it goes."""
        try:
            while True:
                (size,) = unpack("=I", receive(client, 4))
                if not 0 < size <= MESSAGE_MAX_BYTES:
                    break
                message = receive(client, size)
                if message[0] == STDIN:
                    self.put(message[1:])
                elif message[0] == RESIZE and self.tty:
                    fcntl.ioctl(self.output, termios.TIOCSWINSZ, message[1:9])
                elif message[0] == CLOSE:
                    self.end_input()
        except OSError:
            pass
        self.forget(client)
        self.end_input()

    def forget(self, client):
        """Whoever learns first that the client has gone."""
        try:
            self.clients.remove(client)
            client.shutdown(_socket.SHUT_RDWR)
        except (ValueError, OSError):
            pass

    def end_input(self):
        if self.once and not self.tty and self.writes >= 0:
            fd, self.writes = self.writes, -1
            os.close(fd)

    def put(self, data):
        while data:
            try:
                data = data[os.write(self.writes, data) :]
            except BlockingIOError:  # a terminal that the program does not read
                select.select([], [self.writes], [])


def receive(client, size):
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise OSError("gone")
        data += piece
    return data
