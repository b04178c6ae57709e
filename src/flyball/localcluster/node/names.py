"""Cluster DNS names, without a DNS server: a table that every pod's resolver reads.

A plain process cannot be given a resolver of its own. So the table is a file: the bind shim looks names up in it for
Python programs. Other programs know Services by ``{SVC}_SERVICE_HOST`` only.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]

DOMAIN = "cluster.local"
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

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            with contextlib.suppress(OSError):  # a full disk: the next change tries again
                self.write()
            await self._dirty.wait()
            await asyncio.sleep(WRITE_DELAY_S)
            self._dirty.clear()
