# mypy: ignore-errors
"""Gives a Python pod an address of its own: a listener on every address becomes one on POD_IP.

Python imports this at start because its folder stands first on the pod's PYTHONPATH. It runs in the user's own
interpreter, so it imports only the standard library and never fails the program.
"""

import os


def _install(pod_ip, host_name):
    import socket

    original = socket.socket.bind
    wildcards = ("", "0.0.0.0", "::", "::0")

    def bind(self, address, /):
        # Port 0 stays as it is: it never collides, and a client's socket must be able to leave the loopback.
        if isinstance(address, tuple) and len(address) >= 2 and address[0] in wildcards and address[1] != 0:
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
        if name in wildcards or name.startswith("127.") or name == host_name:
            return host_name
        return getfqdn(name)

    socket.socket.bind = bind
    socket.getfqdn = pod_getfqdn
    socket.gethostname = lambda: host_name
    system = os.uname()
    renamed = os.uname_result((system.sysname, host_name, system.release, system.version, system.machine))
    os.uname = lambda: renamed


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
    _install(os.environ["POD_IP"], os.environ.get("HOSTNAME") or "localhost")
_chain()
