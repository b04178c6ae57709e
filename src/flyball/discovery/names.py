"""``dns_sd_configs``: targets from DNS records."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from flyball.discovery.groups import REFRESHES_FAILED
from flyball.model.scrapeconfigs import DnsSD, TargetGroup

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_META = "__meta_dns_"


class DnsDiscovery:
    """One section. A name that cannot be looked up keeps the targets it had; one that does not exist has none."""

    def __init__(self, sd: DnsSD, what: str, *, resolver: Any = None) -> None:
        self._sd, self._what = sd, what
        self._resolver = resolver
        self._groups: dict[str, TargetGroup] = {}

    async def run(self, publish: Callable[[Sequence[TargetGroup]], None]) -> None:
        """Calls ``publish`` with all groups after every change, until cancelled."""
        known: dict[str, TargetGroup] | None = None
        while True:
            await asyncio.gather(*(self._look_up(name) for name in self._sd.names))
            if self._groups != known:
                known = dict(self._groups)
                publish(list(known.values()))
            await asyncio.sleep(self._sd.refresh_interval_ms / 1000)

    async def _look_up(self, name: str) -> None:
        import dns.asyncresolver
        import dns.exception
        import dns.resolver

        resolver = self._resolver or dns.asyncresolver.get_default_resolver()
        try:
            answer = await resolver.resolve(name, self._sd.type, lifetime=_TIMEOUT_S, search=True)
            targets = [self._target(name, record) for record in answer]
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            targets = []
        except (dns.exception.DNSException, OSError) as exc:
            log.warning("discovery_failed section=%s name=%s error=%s", self._what, name, exc or repr(exc))
            REFRESHES_FAILED.labels("dns", self._what).inc()
            return
        targets.sort(key=lambda target: target["__address__"])
        self._groups[name] = TargetGroup(source=name, targets=tuple(targets))

    def _target(self, name: str, record: Any) -> dict[str, str]:
        port = str(self._sd.port)
        found = {f"{_META}name": name}
        kind = self._sd.type
        if kind == "SRV":
            host, port = str(record.target).rstrip("."), str(record.port)
            found |= {f"{_META}srv_record_target": str(record.target), f"{_META}srv_record_port": port}
        elif kind == "MX":
            host = str(record.exchange).rstrip(".")
            found[f"{_META}mx_record_target"] = str(record.exchange)
        elif kind == "NS":
            host = str(record.target).rstrip(".")
            found[f"{_META}ns_record_target"] = str(record.target)
        else:
            host = str(record.address)
        return {"__address__": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", **found}
