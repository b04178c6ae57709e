"""Who owns which field of an object: ``metadata.managedFields``, and server-side apply over it.

Pure functions on objects; the time is an argument. The rules are those of apimachinery's managedfields package and of
structured-merge-diff's Updater. A *writer* is a manager's name with its operation, version and subresource.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flyball.clock import rfc3339
from flyball.localcluster import failures
from flyball.localcluster.schema import fieldsets
from flyball.localcluster.schema.fieldsets import Fields, Node

Object = dict[str, Any]

APPLY, UPDATE = "Apply", "Update"
UPDATE_WRITERS_MAX = 10
_OLD_WRITERS = "ancient-changes"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_GO_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "&<>\u2028\u2029"}  # as Go's encoder writes them into JSON
_UNTRACKED_METADATA = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: ``api_version`` is the version of the object they send."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """An applier is the same whichever version it sends; an updater is not."""
        return self.manager, self.operation, "" if self.operation == APPLY else self.api_version, self.subresource

    @property
    def shown(self) -> str:
        """As a conflict names it."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


@dataclass(slots=True)
class Owned:
    """One writer's fields."""

    writer: Writer
    fields: Fields
    time: str = ""


@dataclass(frozen=True, slots=True)
class Views:
    """An object in the versions its managers know: how to convert it, and the schema of each version."""

    convert: Callable[[Object, str], Object]
    schema: Callable[[str], Node]
    stored_version: str

    def of(self, obj: Object, api_version: str) -> tuple[Object, Node]:
        """The tracked part of the object in a version, with that version's schema."""
        return tracked(self.convert(obj, api_version)), self.schema(api_version)


class Ownership:
    """The managers of one object, by writer."""

    def __init__(self, entries: list[Owned]) -> None:
        self.by_key = {one.writer.key: one for one in entries}

    @classmethod
    def read(cls, managed: Any) -> "Ownership | None":
        """From ``metadata.managedFields``; None when an entry is malformed."""
        entries = []
        for entry in managed or ():
            if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
                return None
            fields = entry.get("fieldsV1")
            if entry.get("fieldsType") not in (None, "", "FieldsV1") or not isinstance(fields or {}, dict):
                return None
            writer = Writer(
                str(entry.get("manager") or ""),
                entry["operation"],
                str(entry.get("apiVersion") or ""),
                str(entry.get("subresource") or ""),
            )
            entries.append(Owned(writer, fields or {}, str(entry.get("time") or "")))
        return cls(entries)

    def write(self) -> list[Object]:
        """As ``metadata.managedFields``: appliers first, each group by time and name."""
        self._forget_the_oldest()
        entries = []
        ordered = sorted(self.by_key.values(), key=lambda one: (one.writer.operation, one.time, one.writer.key))
        for one in ordered:
            entry: Object = {
                "manager": one.writer.manager,
                "operation": one.writer.operation,
                "apiVersion": one.writer.api_version,
                "time": one.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": one.fields,
                "subresource": one.writer.subresource,
            }
            entries.append({name: value for name, value in entry.items() if value != "" or name == "manager"})
        return entries

    def _forget_the_oldest(self) -> None:
        """Above the limit the oldest updaters become one."""
        if len(self.by_key) <= UPDATE_WRITERS_MAX:
            return
        updaters = sorted(
            (one for one in self.by_key.values() if one.writer.operation == UPDATE),
            key=lambda one: (one.time, one.writer.key),
        )
        for one in updaters[: max(0, len(updaters) - UPDATE_WRITERS_MAX)]:
            del self.by_key[one.writer.key]
            writer = Writer(_OLD_WRITERS, UPDATE, one.writer.api_version)
            known = self.by_key.get(writer.key)
            fields = fieldsets.union(known.fields, one.fields) if known else one.fields
            self.by_key[writer.key] = Owned(writer, fields, one.time)

    def others(self, writer: Writer) -> list[Owned]:
        return [one for key, one in self.by_key.items() if key != writer.key]

    def take(self, one: Owned, fields: Fields) -> None:
        """Removes fields from a manager, and the manager with its last one."""
        one.fields = fieldsets.difference(one.fields, fields)
        if not one.fields:
            self.by_key.pop(one.writer.key, None)


def tracked(obj: Object) -> Object:
    """The part of an object that managers own: not its identity, nor what only the server writes."""
    kept = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _UNTRACKED_METADATA}
    if metadata:
        kept["metadata"] = metadata
    else:
        del kept["metadata"]
    return kept


def after_create(obj: Object, writer: Writer, views: Views, now_ms: int) -> list[Object]:
    """The managers of an object that a create made."""
    content, schema = views.of(obj, writer.api_version)
    try:
        fields = fieldsets.created(content, schema)
    except fieldsets.ListKeyError:
        return []
    return Ownership([Owned(writer, fields, rfc3339(now_ms))]).write() if fields else []


def after_update(live: Object, new: Object, given: Any, writer: Writer, views: Views, now_ms: int) -> list[Object]:
    """The managers after a write that was no apply.

    What changed belongs to the writer alone from now on. ``given`` is the managedFields that the client sent: they
    replace the stored ones (a client may drop or rename managers), and a list of one empty entry clears them.
    """
    before: list[Object] = live["metadata"].get("managedFields") or []
    owners = Ownership([]) if given == [{}] else (Ownership.read(given) if given and given != before else None)
    replaced = owners is not None
    if owners is None:
        owners = Ownership.read(before) or Ownership([])
    try:
        changes = _Changes(live, new, views)
        mine_set, mine_removed = changes.seen_from(writer.api_version)
        if not mine_set and not mine_removed and not replaced:
            return before
        for one in owners.others(writer):
            set_, removed = changes.seen_from(one.writer.api_version)
            owners.take(one, fieldsets.union(set_, removed))
    except fieldsets.ListKeyError:
        return before
    mine = owners.by_key.get(writer.key) or Owned(writer, {})
    fields = fieldsets.union(fieldsets.difference(mine.fields, mine_removed), mine_set)
    if fields:
        changed = mine_set or fields != mine.fields
        stamp = rfc3339(now_ms) if changed or not mine.time else mine.time
        if writer.subresource == "scale":
            stamp = ""  # upstream's owners pass through a Scale, which has no place for times
        owners.by_key[writer.key] = Owned(writer, fields, stamp)
    else:
        owners.by_key.pop(writer.key, None)
    return owners.write()


def apply(live: Object | None, config: Object, writer: Writer, views: Views, *, force: bool, now_ms: int) -> Object:
    """The object that an applied configuration makes of the live one, with its new managers, before defaulting.

    Raises:
        ApiFailure: 409, naming each field that another manager owns with another value, unless ``force``.
        ListKeyError: an element of an associative list cannot be told apart.
    """
    content, schema = views.of(config, writer.api_version)
    claimed = fieldsets.field_set(content, schema)
    stamp = rfc3339(now_ms)
    if live is None:
        made = {**config, "metadata": dict(config["metadata"])}
        made["metadata"]["managedFields"] = Ownership([Owned(writer, claimed, stamp)]).write()
        return made
    owners = Ownership.read(live["metadata"].get("managedFields")) or Ownership([])
    last = owners.by_key.get(writer.key)
    base = views.convert(live, writer.api_version)
    merged = fieldsets.merge(tracked(base), content, schema)
    if last is not None and last.fields:
        kept = claimed
        for one in owners.others(writer):
            kept = fieldsets.union(kept, one.fields)
        gone = fieldsets.difference(
            fieldsets.with_named_fields(last.fields, schema), fieldsets.with_named_fields(kept, schema)
        )
        merged = fieldsets.remove(merged, gone, schema)
    result = {**_identity(base), **merged}
    result["metadata"] = {**_identity(base)["metadata"], **(merged.get("metadata") or {})}
    changes = _Changes(live, views.convert(result, views.stored_version), views)
    conflicts: list[tuple[Owned, Fields]] = []
    removals: list[tuple[Owned, Fields]] = []
    for one in owners.others(writer):
        set_, removed = changes.seen_from(one.writer.api_version)
        clash = fieldsets.intersection(one.fields, set_)
        if clash:
            conflicts.append((one, clash))
        if removed:
            removals.append((one, removed))
    if conflicts and not force and not _client_side_applied(live, writer, conflicts, schema):
        raise _conflict(conflicts)
    for one, fields in conflicts + removals:
        owners.take(one, fields)
    if not any(changes.seen_from(writer.api_version)):
        stamp = last.time if last is not None else ""  # as upstream: who changes nothing gets no new time
    owners.by_key[writer.key] = Owned(writer, claimed, stamp)
    result["metadata"]["managedFields"] = owners.write()
    _sync_last_applied(live, result, config, writer)
    return result


class _Changes:
    """What a write did, in each version that a manager knows."""

    def __init__(self, live: Object, new: Object, views: Views) -> None:
        self._live, self._new, self._views = live, new, views
        self._seen: dict[str, tuple[Fields, Fields]] = {}

    def seen_from(self, api_version: str) -> tuple[Fields, Fields]:
        """(fields set, fields removed)."""
        found = self._seen.get(api_version)
        if found is None:
            live, schema = self._views.of(self._live, api_version)
            new, _ = self._views.of(self._new, api_version)
            found = self._seen[api_version] = fieldsets.compare(live, new, schema)
        return found


def _identity(obj: Object) -> Object:
    """What tracked() leaves out."""
    metadata = {name: value for name, value in obj["metadata"].items() if name in _UNTRACKED_METADATA}
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": metadata}


def _sync_last_applied(live: Object, result: Object, config: Object, writer: Writer) -> None:
    """In place: kubectl's own annotation follows what kubectl applies here, so that both ways can be mixed."""
    if writer.manager != "kubectl" or _LAST_APPLIED not in (live["metadata"].get("annotations") or {}):
        return
    applied = {**config, "metadata": dict(config["metadata"])}
    annotations = dict(applied["metadata"].get("annotations") or {})
    annotations.pop(_LAST_APPLIED, None)
    if annotations or "annotations" in applied["metadata"]:
        applied["metadata"]["annotations"] = annotations
    text = json.dumps(applied, separators=(",", ":"), sort_keys=True, ensure_ascii=False).translate(_GO_ESCAPES) + "\n"
    kept = result["metadata"].get("annotations")
    if kept is not None:
        result["metadata"]["annotations"] = {**kept, _LAST_APPLIED: text}


def _client_side_applied(live: Object, writer: Writer, conflicts: list[tuple[Owned, Fields]], schema: Node) -> bool:
    """Whether kubectl may take the fields over, for its own client-side apply had set them."""
    text = (live["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    if writer.manager != "kubectl" or not text:
        return False
    try:
        allowed = fieldsets.field_set(tracked(json.loads(text)), schema)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return not any(fieldsets.difference(fields, allowed) for _, fields in conflicts)


def _conflict(conflicts: list[tuple[Owned, Fields]]) -> failures.ApiFailure:
    causes = []
    shown: dict[str, list[str]] = {}
    for one, fields in conflicts:
        name = one.writer.shown
        for path in fieldsets.paths(fields):
            causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {name}", "field": path})
            shown.setdefault(name, []).append(path)
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        blocks = ["\n- ".join([f"conflicts with {name}:", *found]) for name, found in sorted(shown.items())]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(blocks)
    return failures.ApiFailure(409, text, details={"causes": causes})


def manager_name(field_manager: str, user_agent: str) -> str:
    """The manager of a write: what the client says, else the first word of its User-Agent."""
    return (field_manager or user_agent.split("/", 1)[0])[:128] or "unknown"


def untyped(config: Object, *problems: str) -> failures.ApiFailure:
    """A configuration that does not fit its schema, in upstream's words (which give no reason)."""
    metadata = config.get("metadata") or {}
    group, _, version = str(config.get("apiVersion", "")).rpartition("/")
    text = problems[0] if len(problems) == 1 else "errors:\n  " + "\n  ".join(problems)
    return failures.ApiFailure(
        500,
        f"failed to create typed patch object ({metadata.get('namespace', '')}/{metadata.get('name', '')}; "
        f"{group}/{version}, Kind={config.get('kind', '')}): {text}",
        reason="",
    )
