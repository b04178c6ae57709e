# mypy: ignore-errors
"""Gives a Python pod an address and a resolver of its own.

A listener on every address becomes one on POD_IP. The cluster's names are looked up in the table that the node keeps
(FLYBALL_NAMES); connections to a Service's port that could not be had go to the one that serves it.

Python imports this at start because its folder stands first on the pod's PYTHONPATH. It runs in the user's own
interpreter, so it imports only the standard library and never fails the program.
"""

import os

WILDCARDS = ("", "0.0.0.0", "::", "::0")


class Table:
    """The node's table of names, read again whenever its file changes."""

    def __init__(self, path, search):
        self.path = path
        self.search = search
        self.stamp = None
        self.names = {}
        self.aliases = {}
        self.ports = {}

    def refresh(self):
        try:
            found = os.stat(self.path)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self.stamp:
                import json

                with open(self.path, encoding="utf-8") as file:
                    table = json.load(file)
                self.names, self.aliases, self.ports = table["names"], table["aliases"], table["ports"]
                self.stamp = stamp
        except (OSError, ValueError, KeyError):
            pass  # what was known stays true until it can be read

    def find(self, host):
        """(addresses, None) of a cluster name, (None, another name) of an alias, else (None, None)."""
        self.refresh()
        name = host.rstrip(".").lower()
        tried = [name] if host.endswith(".") else [f"{name}.{domain}" for domain in self.search] + [name]
        for full in tried:
            if full in self.names:
                return self.names[full], None
            if full in self.aliases:
                return None, self.aliases[full]
        return None, None

    def served(self, host, port):
        """The port that really serves an address' port."""
        self.refresh()
        return self.ports.get(f"{host}:{port}", port)


def _give_address(socket, pod_ip, host_name):
    original = socket.socket.bind

    def bind(self, address, /):
        # Port 0 stays as it is: it never collides, and a client's socket must be able to leave the loopback.
        if isinstance(address, tuple) and len(address) >= 2 and address[0] in WILDCARDS and address[1] != 0:
            if self.family == socket.AF_INET:
                address = (pod_ip, address[1])
            elif self.family == socket.AF_INET6:
                if self.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) and address[0] in ("::", "::0"):
                    # The IPv6 half of a pair (asyncio binds both): the IPv4 half serves the pod's address.
                    address = ("::1", 0, *address[2:])
                else:
                    self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    address = ("::ffff:" + pod_ip, address[1], *address[2:])
        return original(self, address)

    getfqdn = socket.getfqdn

    def pod_getfqdn(name=""):
        # A reverse look-up of a loopback address can hang for as long as the resolver's time-out.
        if name in WILDCARDS or name.startswith("127.") or name == host_name:
            return host_name
        return getfqdn(name)

    socket.socket.bind = bind
    socket.getfqdn = pod_getfqdn
    socket.gethostname = lambda: host_name
    system = os.uname()
    renamed = os.uname_result((system.sysname, host_name, system.release, system.version, system.machine))
    os.uname = lambda: renamed


def _give_names(socket, table, pod_ip, host_name):
    getaddrinfo, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def find(host):
        if isinstance(host, bytes):
            host = host.decode("ascii", "replace")
        if not isinstance(host, str) or not host:
            return None, host
        if host == host_name:
            return [pod_ip], None
        found, alias = table.find(host)
        return found, alias or host

    def pod_getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002 - as socket names it
        found, name = find(host)
        if found is None:
            return getaddrinfo(name, port, family, type, proto, flags)
        if family == socket.AF_INET6:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [one for address in found for one in getaddrinfo(address, port, socket.AF_INET, type, proto, flags)]

    def target(sock, address):
        if sock.family != socket.AF_INET or not isinstance(address, tuple) or len(address) != 2:
            return address
        found, name = find(address[0])
        host = found[0] if found else name
        return host, table.served(host, address[1])

    def gethostbyname(name):
        return pod_getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]

    def gethostbyname_ex(name):
        found, other = find(name)
        return (name, [], list(found)) if found is not None else original_ex(other)

    original_ex = socket.gethostbyname_ex
    socket.getaddrinfo = pod_getaddrinfo
    socket.gethostbyname = gethostbyname
    socket.gethostbyname_ex = gethostbyname_ex
    socket.socket.connect = lambda self, address, /: connect(self, target(self, address))
    socket.socket.connect_ex = lambda self, address, /: connect_ex(self, target(self, address))


def _install(pod_ip, host_name, table_path, search):
    import socket

    _give_address(socket, pod_ip, host_name)
    if table_path:
        _give_names(socket, Table(table_path, search), pod_ip, host_name)


def _chain():
    """Runs the sitecustomize that this one hides, if there is one."""
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [path for path in sys.path if os.path.abspath(path or ".") != here]
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("POD_IP"):
    _install(
        os.environ["POD_IP"],
        os.environ.get("HOSTNAME") or "localhost",
        os.environ.get("FLYBALL_NAMES"),
        os.environ.get("FLYBALL_SEARCH", "").split(),
    )
_chain()
