"""Files of /proc and /sys to samples: functions of their text. Names and units are node_exporter's."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Type = Literal["gauge", "counter", "untyped"]


class Sample(NamedTuple):
    """One series of a family."""

    name: str
    value: float
    labels: Mapping[str, str] = {}
    type: Type = "gauge"


TICKS_PER_S = 100  # USER_HZ, fixed by the kernel's interface
SECTOR_BYTES = 512
CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
DISK_EXCLUDED = re.compile(r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$")
VMSTAT_INCLUDED = re.compile(r"^(oom_kill|pgpg|pswp|pg.*fault).*")
NETSTAT_INCLUDED = re.compile(
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
)
_DISK_FIELDS: tuple[tuple[str, float, Type], ...] = (
    ("reads_completed_total", 1, "counter"),
    ("reads_merged_total", 1, "counter"),
    ("read_bytes_total", SECTOR_BYTES, "counter"),
    ("read_time_seconds_total", 0.001, "counter"),
    ("writes_completed_total", 1, "counter"),
    ("writes_merged_total", 1, "counter"),
    ("written_bytes_total", SECTOR_BYTES, "counter"),
    ("write_time_seconds_total", 0.001, "counter"),
    ("io_now", 1, "gauge"),
    ("io_time_seconds_total", 0.001, "counter"),
    ("io_time_weighted_seconds_total", 0.001, "counter"),
    ("discards_completed_total", 1, "counter"),
    ("discards_merged_total", 1, "counter"),
    ("discarded_sectors_total", 1, "counter"),
    ("discard_time_seconds_total", 0.001, "counter"),
    ("flush_requests_total", 1, "counter"),
    ("flush_requests_time_seconds_total", 0.001, "counter"),
)
_NET_FIELDS = (
    ("receive", ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")),
    ("transmit", ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")),
)


def cpu(stat: str) -> Iterator[Sample]:
    """Seconds of each processor by mode; guest time is in user and nice as well."""
    for line in stat.splitlines():
        found = re.match(r"cpu(\d+) ", line)
        if found:
            seconds = [int(ticks) / TICKS_PER_S for ticks in line.split()[1:]]
            for mode, value in zip(CPU_MODES, seconds, strict=False):
                yield Sample("node_cpu_seconds_total", value, {"cpu": found[1], "mode": mode}, "counter")
            for mode, value in zip(("user", "nice"), seconds[8:10], strict=False):
                yield Sample("node_cpu_guest_seconds_total", value, {"cpu": found[1], "mode": mode}, "counter")


def stat(text: str) -> Iterator[Sample]:
    """Boot time, context switches, forks, interrupts, processes."""
    names: dict[str, tuple[str, Type]] = {
        "intr": ("node_intr_total", "counter"),
        "ctxt": ("node_context_switches_total", "counter"),
        "btime": ("node_boot_time_seconds", "gauge"),
        "processes": ("node_forks_total", "counter"),
        "procs_running": ("node_procs_running", "gauge"),
        "procs_blocked": ("node_procs_blocked", "gauge"),
    }
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in names:
            name, kind = names[words[0]]
            yield Sample(name, float(words[1]), type=kind)


def loadavg(text: str) -> Iterator[Sample]:
    for name, value in zip(("node_load1", "node_load5", "node_load15"), text.split(), strict=False):
        yield Sample(name, float(value))


def meminfo(text: str) -> Iterator[Sample]:
    """One family a line; those in kB in bytes."""
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words:
            name = re.sub(r"\((.*)\)", r"_\1", key)
            in_kb = len(words) > 1 and words[1] == "kB"
            yield Sample(f"node_memory_{name}{'_bytes' if in_kb else ''}", float(words[0]) * (1024 if in_kb else 1))


def vmstat(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if VMSTAT_INCLUDED.match(key):
            yield Sample(f"node_vmstat_{key}", float(value), type="untyped")


def diskstats(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and not DISK_EXCLUDED.match(words[2]):
            for (name, factor, kind), value in zip(_DISK_FIELDS, words[3:], strict=False):
                yield Sample(f"node_disk_{name}", float(int(value) * factor), {"device": words[2]}, kind)


def netdev(text: str) -> Iterator[Sample]:
    """/proc/net/dev."""
    for line in text.splitlines()[2:]:
        device, _, rest = line.partition(":")
        values = rest.split()
        for number, (direction, fields) in enumerate(_NET_FIELDS):
            for field, value in zip(fields, values[number * 8 : number * 8 + 8], strict=False):
                name = f"node_network_{direction}_{field}_total"
                yield Sample(name, float(value), {"device": device.strip()}, "counter")


def netstat(text: str) -> Iterator[Sample]:
    """/proc/net/netstat and /proc/net/snmp: pairs of lines, names and values."""
    lines = text.splitlines()
    for head, values in zip(lines[::2], lines[1::2], strict=False):
        protocol, _, names = head.partition(":")
        for name, value in zip(names.split(), values.partition(":")[2].split(), strict=False):
            yield from _netstat_sample(f"{protocol}_{name}", value)


def snmp6(text: str) -> Iterator[Sample]:
    """/proc/net/snmp6: ``Ip6InOctets 460``."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if "6" in key:
            at = key.index("6") + 1
            yield from _netstat_sample(f"{key[:at]}_{key[at:].strip()}", value)


def _netstat_sample(key: str, value: str) -> Iterator[Sample]:
    if NETSTAT_INCLUDED.match(key):
        yield Sample(f"node_netstat_{key}", float(value), type="untyped")


def sockstat(text: str, page_bytes: int) -> Iterator[Sample]:
    """/proc/net/sockstat and sockstat6; memory is counted in pages."""
    for line in text.splitlines():
        protocol, _, rest = line.partition(":")
        words = rest.split()
        for name, value in zip(words[::2], words[1::2], strict=False):
            yield Sample(f"node_sockstat_{protocol}_{name}", float(value))
            if name == "mem":
                yield Sample(f"node_sockstat_{protocol}_mem_bytes", float(value) * page_bytes)


def conntrack_stat(text: str) -> Iterator[Sample]:
    """/proc/net/stat/nf_conntrack: a line a processor, in hexadecimal."""
    lines = [line.split() for line in text.splitlines()]
    shown = ("found", "invalid", "ignore", "insert", "insert_failed", "drop", "early_drop", "search_restart")
    for name in shown:
        if name in lines[0]:
            at = lines[0].index(name)
            yield Sample(f"node_nf_conntrack_stat_{name}", float(sum(int(line[at], 16) for line in lines[1:])))


def pressure(resource: str, text: str) -> Iterator[Sample]:
    """/proc/pressure/*: microseconds that some or all tasks waited."""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        total = re.search(r"total=(\d+)", rest)
        if total and not (resource == "cpu" and kind == "full"):
            what = "waiting" if kind == "some" else "stalled"
            name = f"node_pressure_{resource}_{what}_seconds_total"
            yield Sample(name, int(total[1]) / 1000 / 1000, type="counter")


def mdstat(text: str) -> Iterator[Sample]:
    """Software RAID arrays."""
    for found in re.finditer(r"^(\S+) : (.*)\n((?:[ \t]+\S.*\n?)*)", text, re.M):
        device, head, body = found.groups()
        size = re.search(r"(\d+) blocks", body)
        if size is None:
            continue
        counts = re.search(r"\[(\d+)/(\d+)\] \[[U_]+\]", body)
        members = re.findall(r"\S+\[\d+\](?:\((\w)\))*", head)
        down = members.count("F")
        spare = members.count("S")
        active_array = head.startswith("active")
        required = active = len(members) if active_array else 0
        if counts and active_array:
            required, active = int(counts[1]), int(counts[2])
        syncing = re.search(r"(recovery|resync|check|reshape)\s*=\s*([\d.]+%|\S+)(?:.*?\((\d+)/\d+\))?", body)
        state = "active" if active_array else "inactive"
        if syncing:
            state = {"recovery": "recovering", "reshape": "recovering"}.get(syncing[1], syncing[1])
        labels = {"device": device}
        yield Sample("node_md_blocks", float(size[1]), labels)
        synced = float(syncing[3]) if syncing and syncing[3] else float(size[1])
        if syncing and not syncing[3]:
            synced = 0.0
        yield Sample("node_md_blocks_synced", synced, labels)
        yield Sample("node_md_disks_required", float(required), labels)
        for name, count in (("active", active), ("failed", down), ("spare", spare)):
            yield Sample("node_md_disks", float(count), {**labels, "state": name})
        for name in ("active", "check", "inactive", "recovering", "resync"):
            yield Sample("node_md_state", float(name == state), {**labels, "state": name})
