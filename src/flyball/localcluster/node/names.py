"""Cluster names as pods read them: their hosts and resolver files, and a table for Python programs.

A program that asks a server is answered by the cluster's own (``dnsserver``), where there is one. Where there is none,
/etc/hosts has the names, for every program that reads it (all that use the C library; Go's and most others). The table
is a file in which the bind shim looks names up; it also knows where a port that could not be had is really served.
Plain processes that are not Python know Services by ``{SVC}_SERVICE_HOST`` only.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Object = dict[str, Any]

DOMAIN = "cluster.local"
CLUSTER_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet")
WRITE_DELAY_S = 0.02  # one rollout changes many slices; the table is written once


def addresses_of(services: Iterable[Object], slices: Iterable[Object]) -> dict[str, list[str]]:
    """Full name -> addresses: a Service's own, or its ready endpoints' when it is headless.

    A named pod of a headless Service has a name of its own, as a StatefulSet's replicas have.
    """
    by_service: dict[tuple[str, str], list[Object]] = {}
    for one in slices:
        metadata = one["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service.setdefault((metadata.get("namespace") or "default", name), []).append(one)
    found: dict[str, list[str]] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        namespace = metadata.get("namespace") or "default"
        full = f"{metadata['name']}.{namespace}.svc.{DOMAIN}"
        if spec.get("type") == "ExternalName":
            continue
        if spec.get("clusterIP") not in (None, "", "None"):
            found[full] = [spec["clusterIP"]]
            continue
        every: set[str] = set()
        for one in by_service.get((namespace, metadata["name"]), ()):
            for endpoint in one.get("endpoints") or []:
                if (endpoint.get("conditions") or {}).get("ready", True) is False:
                    continue
                every.update(endpoint.get("addresses") or [])
                if endpoint.get("hostname"):
                    found[f"{endpoint['hostname']}.{full}"] = list(endpoint.get("addresses") or [])
        if every:
            found[full] = sorted(every)
    return found


def aliases_of(services: Iterable[Object]) -> dict[str, str]:
    """Full name -> the name that an ExternalName Service stands for."""
    return {
        f"{one['metadata']['name']}.{one['metadata'].get('namespace') or 'default'}.svc.{DOMAIN}": one["spec"][
            "externalName"
        ]
        for one in services
        if (one.get("spec") or {}).get("type") == "ExternalName" and one["spec"].get("externalName")
    }


def search_list(namespace: str) -> list[str]:
    """What a pod's resolver appends to a name that is not complete."""
    return [f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN]


def resolver_text(pod: Object, nameserver: str, host_text: str) -> str:
    """A pod's /etc/resolv.conf, as a kubelet writes it.

    Args:
        nameserver: the cluster's.
        host_text: the machine's own file.
    """
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    policy, extra = spec.get("dnsPolicy", "ClusterFirst"), spec.get("dnsConfig") or {}
    host: dict[str, list[str]] = {}
    for key, *words in (line.split() for line in host_text.splitlines() if line.strip() and line[0] not in "#;"):
        # A later search line takes an earlier one's place; servers add up.
        host[key] = [*host.get(key, []), *words] if key == "nameserver" else words
    of_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork"))
    if of_cluster:
        servers, options = [nameserver], ["ndots:5"]
        searches = [*search_list(metadata.get("namespace") or "default"), *host.get("search", [])]
    elif policy == "None":
        servers, searches, options = [], [], []
    else:
        servers, searches, options = (host.get(key, []) for key in ("nameserver", "search", "options"))
    given = {one["name"]: str(one.get("value") or "") for one in extra.get("options") or []}
    options = [one for one in options if one.partition(":")[0] not in given]
    options += [f"{name}:{value}" if value else name for name, value in given.items()]
    searches = list(dict.fromkeys([*searches, *(extra.get("searches") or [])]))
    lines = [f"nameserver {one}" for one in [*servers, *(extra.get("nameservers") or [])]]
    lines += [f"search {' '.join(searches)}"] if searches else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def hosts_text(pod: Object, ip: str, found: Mapping[str, Sequence[str]]) -> str:
    """A pod's /etc/hosts: itself, its ``hostAliases``, and the cluster's names in all their short forms."""
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    namespace = metadata.get("namespace") or "default"
    own = spec.get("hostname") or metadata["name"]
    full = [f"{own}.{spec['subdomain']}.{namespace}.svc.{DOMAIN}"] if spec.get("subdomain") else []
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", " ".join([ip, *full, own])]
    lines += [" ".join([one["ip"], *(one.get("hostnames") or [])]) for one in spec.get("hostAliases") or []]
    if spec.get("dnsPolicy", "ClusterFirst") in CLUSTER_POLICIES:
        for name, addresses in sorted(found.items()):
            short = [name.removesuffix(f".{end}") for end in search_list(namespace) if name.endswith(f".{end}")]
            lines += [" ".join([address, name, *short]) for address in addresses]
    return "\n".join(lines) + "\n"


class NameTable:
    """Keeps the file in step with what ``contents`` returns.

    The file is JSON: ``names`` (full name -> addresses), ``aliases`` (full name -> another name) and ``ports``
    (``"address:port"`` -> the port at which it is really served, where the wanted one could not be had).
    """

    def __init__(self, path: Path, contents: Callable[[], Mapping[str, Any]]) -> None:
        self.path = path
        self._contents = contents
        self._dirty = asyncio.Event()
        self._text = ""
        self.on_write: Callable[[], None] = lambda: None

    def changed(self) -> None:
        """Something that the table shows may have changed."""
        self._dirty.set()

    def write(self) -> None:
        """Writes the file, at once and whole, if its content changes."""
        text = json.dumps(self._contents(), sort_keys=True)
        if text == self._text:
            return
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)
        self._text = text
        self.on_write()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            with contextlib.suppress(OSError):  # a full disk: the next change tries again
                self.write()
            await self._dirty.wait()
            await asyncio.sleep(WRITE_DELAY_S)
            self._dirty.clear()
