"""Collectors: where each reads, and what it makes of it."""

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flyball import clock
from flyball.exporters.node import parsing
from flyball.exporters.node.parsing import Sample

FILESYSTEMS_EXCLUDED = re.compile(
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|erofs|fusectl|hugetlbfs|iso9660|mqueue|nsfs"
    r"|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$"
)
MOUNTS_EXCLUDED = re.compile(
    r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
STA_NANO = 0x2000
TIME_ERROR = 5


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the machine's files are; a container mounts its host's elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    rootfs: Path = Path("/")
    textfile: Path | None = None


Collect = Callable[[Paths], Iterator[Sample]]


def _of(file: str, parse: Callable[[str], Iterator[Sample]]) -> Collect:
    return lambda paths: parse((paths.proc / file).read_text())


def _net(paths: Paths) -> Path:
    """The first process' network, which is the machine's where a container has one of its own."""
    first = paths.proc / "1/net"
    return first if os.access(first / "dev", os.R_OK) else paths.proc / "net"


def _netdev(paths: Paths) -> Iterator[Sample]:
    return parsing.netdev((_net(paths) / "dev").read_text())


def _netstat(paths: Paths) -> Iterator[Sample]:
    for file in ("netstat", "snmp"):
        yield from parsing.netstat((_net(paths) / file).read_text())
    six = _net(paths) / "snmp6"
    if six.exists():
        yield from parsing.snmp6(six.read_text())


def _sockstat(paths: Paths) -> Iterator[Sample]:
    for file in ("sockstat", "sockstat6"):
        path = _net(paths) / file
        if path.exists():
            yield from parsing.sockstat(path.read_text(), os.sysconf("SC_PAGE_SIZE"))


def _conntrack(paths: Paths) -> Iterator[Sample]:
    base = paths.proc / "sys/net/netfilter"
    yield Sample("node_nf_conntrack_entries", float((base / "nf_conntrack_count").read_text()))
    yield Sample("node_nf_conntrack_entries_limit", float((base / "nf_conntrack_max").read_text()))
    per_cpu = paths.proc / "net/stat/nf_conntrack"
    if per_cpu.exists():
        yield from parsing.conntrack_stat(per_cpu.read_text())


def _filefd(paths: Paths) -> Iterator[Sample]:
    words = (paths.proc / "sys/fs/file-nr").read_text().split()
    yield Sample("node_filefd_allocated", float(words[0]))
    yield Sample("node_filefd_maximum", float(words[2]))


def _entropy(paths: Paths) -> Iterator[Sample]:
    base = paths.proc / "sys/kernel/random"
    yield Sample("node_entropy_available_bits", float((base / "entropy_avail").read_text()))
    yield Sample("node_entropy_pool_size_bits", float((base / "poolsize").read_text()))


def _pressure(paths: Paths) -> Iterator[Sample]:
    for path in sorted((paths.proc / "pressure").iterdir()):
        yield from parsing.pressure(path.name, path.read_text())


def _netclass(paths: Paths) -> Iterator[Sample]:
    for device in sorted((paths.sys / "class/net").iterdir()):
        state = device / "operstate"
        if state.exists():
            yield Sample("node_network_up", float(state.read_text().strip() == "up"), {"device": device.name})


def _bonding(paths: Paths) -> Iterator[Sample]:
    base = paths.sys / "class/net"
    for master in (base / "bonding_masters").read_text().split():
        slaves = (base / master / "bonding/slaves").read_text().split()
        up = 0
        for slave in slaves:
            for name in (f"lower_{slave}/bonding_slave", f"slave_{slave}/bonding_slave"):
                path = base / master / name / "mii_status"
                if path.exists():
                    up += path.read_text().strip() == "up"
                    break
        yield Sample("node_bonding_slaves", float(len(slaves)), {"master": master})
        yield Sample("node_bonding_active", float(up), {"master": master})


def _filesystem(paths: Paths) -> Iterator[Sample]:
    mounts = paths.proc / "1/mountinfo"
    if not os.access(mounts, os.R_OK):
        mounts = paths.proc / "self/mountinfo"
    seen = set()
    for line in mounts.read_text().splitlines():
        words = line.split()
        at = words.index("-")
        point, options = _unescaped(words[4]), words[5].split(",")
        kind, device = words[at + 1], words[at + 2]
        if FILESYSTEMS_EXCLUDED.match(kind) or MOUNTS_EXCLUDED.match(point) or (device, point) in seen:
            continue
        seen.add((device, point))
        labels = {"device": device, "fstype": kind, "mountpoint": point, "device_error": ""}
        try:
            found = os.statvfs(paths.rootfs / point.lstrip("/"))
        except OSError as exc:
            yield Sample("node_filesystem_device_error", 1.0, {**labels, "device_error": exc.strerror or "error"})
            continue
        yield Sample("node_filesystem_device_error", 0.0, labels)
        yield Sample("node_filesystem_size_bytes", float(found.f_blocks * found.f_frsize), labels)
        yield Sample("node_filesystem_free_bytes", float(found.f_bfree * found.f_frsize), labels)
        yield Sample("node_filesystem_avail_bytes", float(found.f_bavail * found.f_frsize), labels)
        yield Sample("node_filesystem_files", float(found.f_files), labels)
        yield Sample("node_filesystem_files_free", float(found.f_ffree), labels)
        yield Sample("node_filesystem_readonly", float("ro" in options), labels)


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), on 64-bit Linux."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_s", ctypes.c_long),
        ("time_us", ctypes.c_long),
        ("rest", ctypes.c_char * 128),
    )


def _timex(_: Paths) -> Iterator[Sample]:
    found = _Timex()
    status = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(found))
    if status < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "adjtimex")
    divisor = 1e9 if found.status & STA_NANO else 1e6
    yield Sample("node_timex_offset_seconds", found.offset / divisor)
    yield Sample("node_timex_maxerror_seconds", found.maxerror / 1e6)
    yield Sample("node_timex_estimated_error_seconds", found.esterror / 1e6)
    yield Sample("node_timex_status", float(found.status))
    yield Sample("node_timex_sync_status", float(status != TIME_ERROR))


def _uname(_: Paths) -> Iterator[Sample]:
    found = os.uname()
    labels = {
        "sysname": found.sysname,
        "release": found.release,
        "version": found.version,
        "machine": found.machine,
        "nodename": found.nodename,
        "domainname": "(none)",
    }
    yield Sample("node_uname_info", 1.0, labels)


def _time(_: Paths) -> Iterator[Sample]:
    yield Sample("node_time_seconds", clock.now_ms() / 1000)


COLLECTORS: dict[str, Collect] = {
    "bonding": _bonding,
    "conntrack": _conntrack,
    "cpu": _of("stat", parsing.cpu),
    "diskstats": _of("diskstats", parsing.diskstats),
    "entropy": _entropy,
    "filefd": _filefd,
    "filesystem": _filesystem,
    "loadavg": _of("loadavg", parsing.loadavg),
    "mdadm": _of("mdstat", parsing.mdstat),
    "meminfo": _of("meminfo", parsing.meminfo),
    "netclass": _netclass,
    "netdev": _netdev,
    "netstat": _netstat,
    "pressure": _pressure,
    "sockstat": _sockstat,
    "stat": _of("stat", parsing.stat),
    "time": _time,
    "timex": _timex,
    "uname": _uname,
    "vmstat": _of("vmstat", parsing.vmstat),
}

__all__ = ["COLLECTORS", "Paths"]
