"""What the cluster's DNS says: the records of Services and their endpoints, and the answer to one query. No I/O.

Source: the Kubernetes DNS specification, version 1.1.0. dnspython, which reads and writes messages, is loaded with the
first query.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyball.localcluster.node import names

if TYPE_CHECKING:
    import dns.message

Object = dict[str, Any]

TTL_S = 5
_REVERSE = ".in-addr.arpa"


@dataclass(frozen=True, slots=True)
class Records:
    """Full names, without a final dot.

    Attributes:
        addresses: name -> IPv4 addresses.
        aliases: name -> the name elsewhere that it stands for.
        ports: ``_PORT._PROTOCOL.SERVICE`` -> (port, the name that serves it).
        reverse: address -> name.
    """

    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    reverse: Mapping[str, str] = field(default_factory=dict)

    def knows(self, name: str) -> bool:
        """Whether the name exists, itself or as the end of one that does."""
        every = (self.addresses, self.aliases, self.ports)
        return any(name in one or any(other.endswith("." + name) for other in one) for one in every)


def records_of(services: Iterable[Object], slices: Iterable[Object]) -> Records:
    """All records of the cluster."""
    services, slices = list(services), list(slices)
    addresses = {name: list(found) for name, found in names.addresses_of(services, slices).items()}
    ports: dict[str, list[tuple[int, str]]] = {}
    reverse: dict[str, str] = {}
    headless: dict[tuple[str, str], str] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        key = (metadata.get("namespace") or "default", metadata["name"])
        full = f"{key[1]}.{key[0]}.svc.{names.DOMAIN}"
        if spec.get("type") == "ExternalName":
            continue
        if spec.get("clusterIP") in (None, "", "None"):
            headless[key] = full
            continue
        reverse[spec["clusterIP"]] = full
        for port in spec.get("ports") or []:
            if port.get("name"):
                ports[_service_port(port, full)] = [(int(port["port"]), full)]
    for one in slices:
        metadata = one["metadata"]
        of = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        service_name = headless.get((metadata.get("namespace") or "default", of))
        if service_name is None:
            continue
        for endpoint in one.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True) is False:
                continue
            for address in endpoint.get("addresses") or []:
                name = f"{endpoint.get('hostname') or address.replace('.', '-')}.{service_name}"
                addresses.setdefault(name, [address])
                reverse.setdefault(address, name)
                for port in one.get("ports") or []:
                    if port.get("name") and port.get("port"):
                        ports.setdefault(_service_port(port, service_name), []).append((int(port["port"]), name))
    return Records(addresses, names.aliases_of(services), ports, reverse)


def _service_port(port: Object, full: str) -> str:
    return f"_{port['name']}._{str(port.get('protocol') or 'TCP').lower()}.{full}"


def respond(wire: bytes, records: Records) -> "dns.message.Message | None":
    """The cluster's answer to a query; None when the name is not the cluster's.

    Raises:
        ValueError: these bytes are no query.
    """
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rdatatype

    try:
        query = dns.message.from_wire(wire)
        question = query.question[0]
    except (dns.exception.DNSException, IndexError) as exc:
        raise ValueError(f"not a DNS query: {exc}") from exc
    name = question.name.to_text(omit_final_dot=True).lower()
    address = ".".join(reversed(name.removesuffix(_REVERSE).split("."))) if name.endswith(_REVERSE) else ""
    if not address.startswith("127.") and name != names.DOMAIN and not name.endswith("." + names.DOMAIN):
        return None
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA | dns.flags.RA
    kind = dns.rdatatype.to_text(question.rdtype)
    if address:
        known = address in records.reverse
        found = {"PTR": [records.reverse[address] + "."]} if known else {}
    else:
        found, known = _found(name, records), records.knows(name) or name == names.DOMAIN
    for one in (kind, "CNAME"):
        if found.get(one):
            _add(response.answer, name, one, found[one])
            break
    if kind == "SRV":
        for _, target in records.ports.get(name, ()):
            _add(response.additional, target, "A", list(records.addresses.get(target, ())))
    if not response.answer:
        if not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        authority = f"ns.dns.{names.DOMAIN}. hostmaster.{names.DOMAIN}. 1 7200 1800 86400 {TTL_S}"
        _add(response.authority, names.DOMAIN, "SOA", [authority])
    return response


def _found(name: str, records: Records) -> dict[str, list[str]]:
    """Record type -> what is said of the name."""
    found: dict[str, list[str]] = {}
    pod, _, rest = name.partition(".")
    if name in records.addresses:
        found["A"] = list(records.addresses[name])
    elif rest.endswith(f".pod.{names.DOMAIN}") and pod.replace("-", "").isdigit():
        found["A"] = [pod.replace("-", ".")]
    if name in records.aliases:
        found["CNAME"] = [records.aliases[name].rstrip(".") + "."]
    if name in records.ports:
        found["SRV"] = [f"0 {100 // len(records.ports[name])} {port} {to}." for port, to in records.ports[name]]
    return found


def _add(section: Any, name: str, kind: str, values: Sequence[str]) -> None:
    import dns.rrset

    if values:
        section.append(dns.rrset.from_text_list(name + ".", TTL_S, "IN", kind, values))
