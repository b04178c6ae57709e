"""The machine's metrics, beside what node_exporter 1.12.1 makes of the same files.

The archive holds upstream's fixtures for the collectors that are served here (Apache-2.0), and of the output of its
end-to-end test the families that are.
"""

import os
import re
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest

from flyball.errors import ConfigError
from flyball.exporters.node import NodeExporter, Paths
from flyball.exporters.node.parsing import netdev
from flyball.exposition import parse

SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
#: these read the machine itself, whatever the paths
LIVE = ("filesystem", "time", "timex", "uname", "textfile")
IGNORED_DEVICES = ("dmz", "int")  # as upstream's end-to-end test ignores them in netclass


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("node")
    with tarfile.open(Path(__file__).parent / "node_exporter_1.12.1.tar.gz") as archive:
        archive.extractall(directory, filter="tar")
    return directory


def parsed(text: str) -> dict[str, tuple[str, dict[frozenset[tuple[str, str]], float]]]:
    """Type and series by family."""
    types, found = {}, defaultdict(dict)
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            types[line.split()[2]] = line.split()[3]
        elif match := SERIES.fullmatch(line):
            found[match[1]][frozenset(LABEL.findall(match[2] or ""))] = float(match[3])
    return {name: (types[name], series) for name, series in found.items()}


def test_families_types_labels_and_values_are_node_exporters(fixtures: Path) -> None:
    exporter = NodeExporter(Paths(fixtures / "proc", fixtures / "sys"), without=(*LIVE, "netdev"))
    found = parsed(exporter.exposition())
    expected = parsed((fixtures / "expected.txt").read_text())
    assert len(expected) > 150
    up = found["node_network_up"][1]
    for device in IGNORED_DEVICES:
        assert up.pop(frozenset({("device", device)})) == 1.0
    for name, family in expected.items():
        assert found[name] == family, name
    assert set(found) - set(expected) == {
        "node_exporter_build_info",
        "node_scrape_collector_duration_seconds",
        "node_scrape_collector_success",
    }
    assert set(found["node_scrape_collector_success"][1].values()) == {1.0}


def test_a_collector_that_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text("0.21 0.37 0.39 1/719 19737\n")
    (tmp_path / "meminfo").write_text("MemTotal: much kB\n")
    found = parsed(NodeExporter(Paths(tmp_path, tmp_path), only=("loadavg", "meminfo", "vmstat")).exposition())
    success = {dict(labels)["collector"]: value for labels, value in found["node_scrape_collector_success"][1].items()}
    assert success == {"loadavg": 1.0, "meminfo": 0.0, "vmstat": 0.0}
    assert found["node_load1"][1] == {frozenset(): 0.21}
    assert "node_memory_MemTotal_bytes" not in found


def test_network_devices_are_read_from_their_table() -> None:
    table = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier\n"
        "  eth0: 10 2 3 4 5 6 7 8 90 10 11 12 13 14 15 16\n"
    )
    values = {sample.name: sample.value for sample in netdev(table)}
    assert values["node_network_receive_bytes_total"] == 10 and values["node_network_receive_drop_total"] == 4
    assert values["node_network_transmit_bytes_total"] == 90 and values["node_network_transmit_carrier_total"] == 15


def test_text_files_are_joined_and_broken_ones_are_counted(tmp_path: Path) -> None:
    (tmp_path / "good.prom").write_text("backup_done 1")
    (tmp_path / "bad.prom").write_text("backup_done{ 1\n")
    text = NodeExporter(Paths(textfile=tmp_path), only=("textfile",)).exposition()
    assert "backup_done 1\n" in text and "node_textfile_scrape_error 1\n" in text


def test_this_machine_is_read_and_the_whole_is_exposition() -> None:
    text = NodeExporter(Paths()).exposition()
    parse(text.encode())
    found = parsed(text)
    assert found["node_uname_info"][1] and found["node_time_seconds"][1]
    mounts = {dict(labels)["mountpoint"] for labels in found["node_filesystem_size_bytes"][1]}
    assert mounts and all(os.path.exists(mount) for mount in mounts)
    assert found["node_timex_sync_status"][1].keys() == {frozenset()}


def test_an_unknown_collector_is_named() -> None:
    with pytest.raises(ConfigError, match=r'no collector "cpus"; known are bonding, .*vmstat'):
        NodeExporter(Paths(), only=("cpus",))
