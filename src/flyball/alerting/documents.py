"""Silences and entries of the notification log as JSON, for the disk and for peers."""

from collections.abc import Mapping
from typing import Any

from flyball.alerting.notificationlog import Entry
from flyball.alerting.silences import Silence, matcher_document, read_matcher


def silence_document(silence: Silence) -> dict[str, Any]:
    """Times in ms."""
    return {
        "id": silence.id,
        "matchers": [matcher_document(matcher) for matcher in silence.matchers],
        "startsMs": silence.starts_ms,
        "endsMs": silence.ends_ms,
        "updatedMs": silence.updated_ms,
        "createdBy": silence.created_by,
        "comment": silence.comment,
        "annotations": dict(silence.annotations),
    }


def read_silence_document(document: Mapping[str, Any]) -> Silence:
    """
    Raises:
        QueryError, ConfigError, KeyError, TypeError: it is not one.
    """
    return Silence(
        matchers=tuple(read_matcher(one) for one in document["matchers"]),
        starts_ms=int(document["startsMs"]),
        ends_ms=int(document["endsMs"]),
        updated_ms=int(document["updatedMs"]),
        created_by=str(document["createdBy"]),
        comment=str(document["comment"]),
        annotations=dict(document["annotations"]),
        id=str(document["id"]),
    )


def entry_document(entry: Entry) -> dict[str, Any]:
    """Times in ms."""
    return {
        "receiver": entry.receiver,
        "groupKey": entry.group_key,
        "atMs": entry.at_ms,
        "expiresMs": entry.expires_ms,
        "firing": sorted(entry.firing),
        "resolved": sorted(entry.resolved),
        "data": dict(entry.data),
    }


def read_entry_document(document: Mapping[str, Any]) -> Entry:
    """
    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    return Entry(
        receiver=str(document["receiver"]),
        group_key=str(document["groupKey"]),
        at_ms=int(document["atMs"]),
        expires_ms=int(document["expiresMs"]),
        firing=frozenset(map(str, document["firing"])),
        resolved=frozenset(map(str, document["resolved"])),
        data=dict(document["data"]),
    )
