"""Requests for resources: collections, single objects and their subresources."""

import contextlib
from typing import Any

import msgspec

from flyball.errors import QueryError
from flyball.localcluster import failures, patching, schema
from flyball.localcluster.answers import answer_object, answer_record, answer_written, is_dry_run, only_get, writer_of
from flyball.localcluster.convert import convert
from flyball.localcluster.escalation import Guard, guard_of
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.listing import answer_list, selection
from flyball.localcluster.managedfields import APPLY, Writer, untyped
from flyball.localcluster.nodes import NodeClient
from flyball.localcluster.objects import Objects
from flyball.localcluster.registry import SUBRESOURCE_VERBS, Served
from flyball.localcluster.requests import JSON, PATCH_TYPES, YAML, Request, decode, duplicate_fields
from flyball.localcluster.reviews import answer_review, answer_token_request
from flyball.localcluster.rights import GROUP, Rights
from flyball.localcluster.subresources import answer_binding, answer_eviction, answer_scale
from flyball.localcluster.tokens import TokenAuthority
from flyball.localcluster.watching import answer_watch

Object = dict[str, Any]
_STREAMS = ("exec", "attach", "portforward")


# Kinds whose deletion is answered with the object that is gone, not with a Status.
_ANSWERS_DELETED = frozenset(
    {
        "/namespaces",
        "/persistentvolumeclaims",
        "/persistentvolumes",
        "/pods",
        "/podtemplates",
        "/resourcequotas",
        "/serviceaccounts",
        "/services",
    }
)


class Resources:
    """Reads, checks and answers requests; what changes goes through ``Objects``."""

    def __init__(
        self, objects: Objects, node: NodeClient, tokens: TokenAuthority, rights: Rights, admin_token: bytes
    ) -> None:
        self._objects = objects
        self._storage = objects.storage
        self._node = node
        self._tokens = tokens
        self._rights = rights
        self._admin_token = admin_token

    async def answer(self, request: Request, group: str, version: str, rest: list[str]) -> None:
        request.check_accept()
        namespace = ""
        watch_prefix = rest[0] == "watch" and len(rest) > 1
        if watch_prefix:  # the old /api/v1/watch/... form
            rest = rest[1:]
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        served = self._objects.served(group, version, rest[0])
        if served.store == "/endpoints":
            request.warnings.append("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        if served.deprecation:
            request.warnings.append(served.deprecation)
        if served.kind.namespaced != bool(namespace) and not (
            served.kind.namespaced and len(rest) == 1 and request.method in ("GET", "DELETE")
        ):
            if "create" in served.kind.verbs and len(served.kind.verbs) == 1 and request.method == "POST":
                pass
            elif served.kind.namespaced and request.method == "POST" and len(rest) == 1:
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            else:
                raise failures.no_such_resource()
        if served.kind.verbs == ("create",):
            await self._create_only(request, served, namespace)
        elif len(rest) == 1:
            await self._collection(request, served, namespace, watch_prefix)
        elif len(rest) == 2:
            await self._item(request, served, namespace, rest[1])
        else:
            await self._subresource(request, served, namespace, rest[1], rest[2:])

    async def answer_stream(self, request: Request, protocols: list[str]) -> None:
        """A WebSocket to ``/api/v1/namespaces/NAMESPACE/pods/NAME/exec``, ``attach`` or ``portforward``.

        Raises:
            ApiFailure: there is no such pod, or it cannot be reached.
        """
        match request.segments:
            case ["api", "v1", "namespaces", namespace, "pods", name, subresource] if subresource in _STREAMS:
                pod = self._objects.get(self._objects.served("", "v1", "pods"), namespace, name).object
                await self._node.relay(request, pod, subresource, protocols)
            case _:
                raise failures.no_such_path()

    async def _create_only(self, request: Request, served: Served, namespace: str) -> None:
        if request.method != "POST":
            raise failures.method_not_allowed()
        if served.kind.plural == "bindings":
            name = str(((await request.object()).get("metadata") or {}).get("name") or "")
            await answer_binding(self._objects, request, self._objects.served("", "v1", "pods"), namespace, name)
        else:
            await answer_review(request, served, self._tokens, self._rights, self._admin_token)

    async def _collection(self, request: Request, served: Served, namespace: str, watching: bool) -> None:
        if request.method == "GET":
            if watching or request.flag("watch"):
                await answer_watch(self._storage, request, served, namespace, request.param("fieldSelector"))
            else:
                await answer_list(self._storage, request, served, namespace)
        elif request.method == "POST":
            obj = await request.object(served.kind.kind)
            check_body(request, served, obj, await request.body())
            writer = writer_of(request, served)
            guard = self._guard(request, served, namespace)
            created = self._objects.create(
                served, namespace, obj, writer=writer, guard=guard, dry_run=is_dry_run(request)
            )
            await answer_written(self._storage, request, served, 201, created)
        elif request.method == "DELETE":
            await self._delete_collection(request, served, namespace)
        else:
            raise failures.method_not_allowed()

    async def _item(self, request: Request, served: Served, namespace: str, name: str) -> None:
        if request.method == "GET":
            await answer_record(request, served, self._objects.get(served, namespace, name))
        elif request.method == "PUT":
            await self._put(request, served, namespace, name, "")
        elif request.method == "PATCH":
            await self._patch(request, served, namespace, name, "")
        elif request.method == "DELETE":
            body = await request.body()
            options = decode(body, request.content_type) if body.strip() else {}
            await self._delete_one(request, served, namespace, name, options)
        else:
            raise failures.method_not_allowed()

    async def _subresource(self, request: Request, served: Served, namespace: str, name: str, path: list[str]) -> None:
        sub = path[0]
        if sub not in served.kind.subresources or sub not in SUBRESOURCE_VERBS or len(path) > 1:
            raise failures.no_such_resource()
        if sub == "log":
            only_get(request)
            await self._node.answer_log(request, self._objects.get(served, namespace, name).object)
        elif sub in _STREAMS:
            self._objects.get(served, namespace, name)
            raise failures.bad_request("Upgrade request required: use kubectl 1.31 or newer, which asks by WebSocket")
        elif sub == "token":
            account = self._objects.get(served, namespace, name).object
            await answer_token_request(request, account, self._tokens)
        elif sub == "binding":
            await answer_binding(self._objects, request, served, namespace, name)
        elif sub == "eviction":
            await answer_eviction(self._objects, request, served, namespace, name)
        elif sub == "scale":
            await answer_scale(self._objects, request, served, namespace, name)
        elif request.method == "GET":
            await answer_record(request, served, self._objects.get(served, namespace, name))
        elif request.method == "PUT":
            await self._put(request, served, namespace, name, sub)
        elif request.method == "PATCH":
            await self._patch(request, served, namespace, name, sub)
        else:
            raise failures.method_not_allowed()

    # changing

    def _guard(self, request: Request, served: Served, namespace: str) -> Guard | None:
        if served.kind.group != GROUP:
            return None
        return guard_of(request, served.kind.plural, namespace, self._storage, self._rights)

    async def _put(self, request: Request, served: Served, namespace: str, name: str, subresource: str) -> None:
        obj = await request.object(served.kind.kind)
        check_body(request, served, obj, await request.body(), known=self._known(served, namespace, name))
        updated = self._objects.update(
            served,
            namespace,
            name,
            obj,
            subresource=subresource,
            writer=writer_of(request, served, subresource),
            guard=self._guard(request, served, namespace),
            dry_run=is_dry_run(request),
        )
        await answer_written(self._storage, request, served, 200, updated)

    def _known(self, served: Served, namespace: str, name: str) -> Object | None:
        """The stored object where it is stored in the version that is served: what equals it was checked before."""
        record = self._objects.get(served, namespace, name)
        return record.object if served.kind == served.storage else None

    async def _patch(self, request: Request, served: Served, namespace: str, name: str, subresource: str) -> None:
        body = await request.body()
        how = PATCH_TYPES.get(request.content_type)
        if how is None or (how == "strategic" and served.is_custom):
            if not served.is_custom:
                raise failures.unsupported_patch_type()
            raise failures.unsupported_media_type([t for t, kind in PATCH_TYPES.items() if kind != "strategic"])
        if how == "apply":
            await self._apply(request, served, namespace, name, subresource)
            return
        try:
            patch = msgspec.json.decode(body)
        except msgspec.DecodeError as exc:
            raise failures.bad_request("invalid JSON patch") from exc
        record = self._objects.get(served, namespace, name)
        current = convert(record.copy(), served.group_version)
        patched = apply_patch(served, how, current, patch)
        try:
            check_body(request, served, patched, patch=True, known=self._known(served, namespace, name))
        except failures.BadRequestError as exc:
            raise failures.bad_patch(exc.message) from exc
        check_identity(served, patched, record.object)
        if patched.get("metadata", {}).get("resourceVersion") is None:
            patched.setdefault("metadata", {})["resourceVersion"] = record.object["metadata"]["resourceVersion"]
        updated = self._objects.update(
            served,
            namespace,
            name,
            patched,
            subresource=subresource,
            writer=writer_of(request, served, subresource),
            guard=self._guard(request, served, namespace),
            dry_run=is_dry_run(request),
        )
        await answer_written(self._storage, request, served, 200, updated)

    async def _apply(self, request: Request, served: Served, namespace: str, name: str, subresource: str) -> None:
        manager = request.param("fieldManager")
        if not manager:
            cause = {
                "reason": "FieldValueRequired",
                "message": "Required value: is required for apply patch",
                "field": "fieldManager",
            }
            raise failures.invalid("meta.k8s.io", "PatchOptions", "", [cause])
        config = decode(await request.body(), YAML, served.kind.kind)
        check_configuration(request, served, namespace, name, config)
        writer = Writer(manager, APPLY, served.group_version, subresource)
        is_new, obj = self._objects.apply(
            served,
            namespace,
            name,
            config,
            writer,
            force=request.flag("force"),
            subresource=subresource,
            guard=self._guard(request, served, namespace),
            dry_run=is_dry_run(request),
        )
        await answer_written(self._storage, request, served, 201 if is_new else 200, obj)

    # delete

    async def _delete_one(self, request: Request, served: Served, namespace: str, name: str, options: Object) -> None:
        for option in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
            if request.param(option) and option not in options:
                text = request.param(option)
                options[option] = request.integer(option) if option == "gracePeriodSeconds" else text
        dry_run = is_dry_run(request) or bool(options.get("dryRun"))
        removed, obj = self._objects.delete(served, namespace, name, options, dry_run=dry_run)
        if removed and served.store not in _ANSWERS_DELETED:
            details: Object = {"name": name, "kind": served.kind.plural, "uid": obj["metadata"]["uid"]}
            if served.kind.group:
                details["group"] = served.kind.group
            await request.answer_object(
                200,
                {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details},
            )
        else:
            await answer_object(request, served, 200, obj)

    async def _delete_collection(self, request: Request, served: Served, namespace: str) -> None:
        if (served.kind.namespaced and not namespace) or "deletecollection" not in served.kind.verbs:
            raise failures.method_not_allowed()
        chosen = selection(request, served, request.param("fieldSelector"))
        body = await request.body()
        options = decode(body, request.content_type) if body.strip() else {}
        items = []
        for record in self._storage.records(served.store, namespace):
            if chosen.matches(record):
                items.append(record.object["metadata"]["name"])
        deleted = []
        for name in items:
            with contextlib.suppress(ApiFailure):
                _, obj = self._objects.delete(served, namespace, name, dict(options), dry_run=is_dry_run(request))
                deleted.append(convert(obj, served.group_version))
        await request.answer_object(
            200,
            {
                "kind": served.kind.list_kind,
                "apiVersion": served.group_version,
                "metadata": {"resourceVersion": str(self._storage.revision)},
                "items": deleted,
            },
        )


def check_body(
    request: Request,
    served: Served,
    obj: Object,
    body: bytes = b"",
    *,
    patch: bool = False,
    known: Object | None = None,
) -> None:
    """Kind, types and unknown fields of an object a client sent; in place, unknown fields are dropped.

    What equals ``known``, the stored object, is not looked at again.

    Raises:
        ApiFailure: 400 when it cannot be what the path says.
    """
    kind = served.kind
    given_version, given_kind = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    named = f'{given_kind} in version "{given_version.rpartition("/")[2]}" cannot be handled as a {kind.kind}: '
    if given_kind != kind.kind:
        raise failures.bad_request(named + f'no kind "{given_kind}" is served at this path')
    if given_version != kind.api_version:
        raise failures.bad_request(
            f"the API version in the data ({given_version}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if not isinstance(obj.get("metadata") or {}, dict):
        given = schema.json_name(obj["metadata"])
        raise failures.bad_request(
            named + f"json: cannot unmarshal {given} into Go struct field {kind.kind}.metadata of type v1.ObjectMeta"
        )
    mode = request.param("fieldValidation") or "Warn"
    if mode not in ("Strict", "Warn", "Ignore"):
        options = {"POST": "CreateOptions", "PUT": "UpdateOptions"}.get(request.method, "PatchOptions")
        message = f'Unsupported value: "{mode}": supported values: "", "Ignore", "Strict", "Warn"'
        cause = {"reason": "FieldValueNotSupported", "message": message, "field": "fieldValidation"}
        raise failures.invalid("meta.k8s.io", options, "", [cause])
    changed = obj if known is None else _differing(obj, known)
    unknown: list[str] = []
    if served.is_custom or not schema.fits(kind, changed):
        wrong = schema.type_errors(kind, changed)
        if wrong:
            raise failures.bad_request((named if not patch else "") + wrong[0])
        unknown = served.unknown_fields(changed)
    if mode != "Ignore":
        if body and request.content_type in ("", JSON):
            unknown = [*unknown, *duplicate_fields(body, obj)]
        if unknown and mode == "Strict":
            text = "strict decoding error: " + ", ".join(unknown)
            raise failures.bad_request(text if patch else named + text)
        request.warnings.extend(unknown)
    if unknown:
        served.prune(obj)
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind


def _differing(new: Object, old: Object, levels: int = 2) -> Object:
    """The fields that are not the same in both, looked for so many levels deep."""
    found = {}
    for name, value in new.items():
        before = old.get(name)
        if value != before:
            nested = levels > 1 and isinstance(value, dict) and isinstance(before, dict)
            found[name] = _differing(value, before, levels - 1) if nested else value  # type: ignore[arg-type]
    return found


def check_identity(served: Served, patched: Object, live: Object) -> None:
    """
    Raises:
        ApiFailure: 422, a patch makes another object of this one.
    """
    given = patched["metadata"].get("uid")
    if given and given != live["metadata"]["uid"]:
        message = f'Invalid value: "{given}": field is immutable'
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "metadata.uid"}
        raise failures.invalid(served.kind.group, served.kind.kind, live["metadata"]["name"], [cause])


def check_configuration(request: Request, served: Served, namespace: str, name: str, config: Object) -> None:
    """What a client applies must name the object at the path and fit its schema.

    Raises:
        ApiFailure: it does not.
    """
    given_version, given_kind = str(config.get("apiVersion") or ""), str(config.get("kind") or "")
    if (given_version, given_kind) != (served.group_version, served.kind.kind):
        group, _, version = given_version.rpartition("/")
        raise failures.bad_request(f"invalid object type: {group}/{version}, Kind={given_kind}")
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        metadata = config["metadata"] = {}
    if metadata.get("managedFields"):
        raise failures.bad_request("metadata.managedFields must be nil")
    if metadata.setdefault("name", name) != name:
        raise failures.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    unknown = served.unknown_fields(config)
    if unknown:
        raise untyped(config, *(f".{text.split(chr(34))[1]}: field not declared in schema" for text in unknown))
    if served.kind.namespaced:
        metadata.setdefault("namespace", namespace)
    check_body(request, served, config, b"")


def apply_patch(served: Served, how: str, current: Object, patch: Any) -> Object:
    """The patched object; ``how`` is json, merge or strategic.

    Raises:
        QueryError: the patch is malformed or does not apply.
    """
    if how == "json":
        patched = patching.json_patch(current, patch)
    elif not isinstance(patch, dict):
        raise QueryError(
            f"error decoding patch: json: cannot unmarshal {schema.json_name(patch)} into Go value of type "
            "map[string]interface {}"
        )
    elif how == "merge":
        patched = patching.merge_patch(current, patch)
    else:
        node: Any = served.patch_schema
        patched = patching.strategic_merge(current, patch, node)
    if not isinstance(patched, dict) or not isinstance(patched.get("metadata"), dict):
        raise QueryError("the patch leaves no object with metadata")
    return patched
