# mypy: disable-error-code="no-untyped-def, no-untyped-call, import-not-found, arg-type"
# ruff: noqa: UP031
"""A container's own view of the file system: this machine's, with its volumes where its manifest wants them.

Imported by the pod shim in the child that becomes the program, so it is as small as the shim. A mount namespace of
its own (for an ordinary user inside a user namespace) gets a new root: a tmpfs that shows every entry of ``/``. A
directory in which a mount point is missing is shown entry by entry too, so that nothing is ever made on the machine.
"""

import _ctypes
import os

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 1, 32, 4096, 8192, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x20000, 0x4000000, 0x10000000

HOSTNAME_MAX = 64

_libc = _ctypes.dlopen(None, 0)


def call(name, *args):
    """A function of the C library that returns 0."""
    if _ctypes.call_function(_ctypes.dlsym(_libc, name), args):
        raise OSError("%s%r was refused" % (name, args))


def bind(source, target, flags=MS_REC):
    call("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND | flags, None)


def unshare():
    """Enters namespaces for mounts and the host's name; changes stay inside them."""
    uid, gid = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | (0 if uid == 0 else CLONE_NEWUSER))
    if uid != 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (uid, uid)),
            ("gid_map", "%d %d 1" % (gid, gid)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def place(path, is_dir):
    """Makes a mount point where there is none."""
    if os.path.lexists(path):
        return
    os.makedirs(path if is_dir else os.path.dirname(path), exist_ok=True)
    if not is_dir:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def show_entries(real, new):
    """An empty directory at ``new`` with all entries of ``real``."""
    call("mount", b"tmpfs", os.fsencode(new), b"tmpfs", 0, b"mode=755")
    for entry in os.scandir(real):
        target = os.path.join(new, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        else:
            is_dir = entry.is_dir(follow_symlinks=False)
            place(target, is_dir)
            bind(entry.path, target, MS_REC if is_dir else 0)


def locate(target):
    """(the target with its existing part resolved, the deepest directory of it that exists).

    A link such as /var/run must not lead out of the new root, back to the machine's own.
    """
    rest: list[str] = []
    path = target.rstrip("/") or "/"
    while not os.path.lexists(path):
        path, name = os.path.split(path)
        rest.insert(0, name)
    real = os.path.realpath(path)
    return os.path.join(real, *rest) if rest else real, real if rest else ""


def enter(new, mounts, hostname):
    """Gives this process the new root, at the empty directory ``new``, and the host's name.

    ``mounts`` are (ro or rw, source, target).
    """
    located = [(kind, source, *locate(target)) for kind, source, target in mounts]
    unshare()
    name = os.fsencode(hostname)[:HOSTNAME_MAX]
    call("sethostname", name, len(name))
    show_entries("/", new)
    for real in sorted({real for _, _, _, real in located} - {"", "/"}, key=lambda path: path.count("/")):
        show_entries(real, new + real)
    for kind, source, target, _ in sorted(located, key=lambda item: item[2].count("/")):
        place(new + target, os.path.isdir(source))
        bind(source, new + target)
        if kind == "ro":
            try:
                bind(source, new + target, MS_REMOUNT | MS_RDONLY)
            except OSError:
                pass  # an ordinary user may not change every mount; it stays writable
    os.chdir(new)
    call("mount", b".", b"/", None, MS_MOVE, None)
    call("chroot", b".")
    os.chdir("/")
