"""Changing the stored objects: what every create, update and delete obeys, whichever request brought it.

Nothing here awaits, so no two writes interleave.
"""

import copy
from collections.abc import Iterable
from typing import Any

from flyball.clock import now_ms, rfc3339
from flyball.localcluster import admission, failures, managedfields, podadmission, schema
from flyball.localcluster.convert import convert
from flyball.localcluster.escalation import Guard
from flyball.localcluster.failures import ApiFailure
from flyball.localcluster.managedfields import UPDATE, Views, Writer
from flyball.localcluster.registry import Registry, Served
from flyball.localcluster.storage import Record, Storage

Object = dict[str, Any]

_OF_THE_SPEC = ("", "resize", "ephemeralcontainers")
CRD_STORE = "apiextensions.k8s.io/customresourcedefinitions"
_CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class Objects:
    """The objects of one cluster, by the resources that are served.

    Args:
        first_host: see ``admission.first_host``.
    """

    def __init__(self, storage: Storage, registry: Registry, first_host: int) -> None:
        self.storage = storage
        self.registry = registry
        self._first_host = first_host

    def served(self, group: str, version: str, plural: str) -> Served:
        """The resource at ``/apis/group/version/plural``.

        Raises:
            ApiFailure: 404, there is none.
        """
        served = self.registry.find(group, version, plural)
        if served is None:
            raise self.registry.missing(group, version)
        return served

    def get(self, served: Served, namespace: str, name: str) -> Record:
        record = self.storage.get(served.store, namespace, name)
        if record is None:
            raise failures.not_found(served.kind.group, served.kind.plural, name)
        return record

    def _identify(self, served: Served, namespace: str, obj: Object) -> Object:
        """In place: metadata made a dict in the right namespace."""
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            metadata = obj["metadata"] = {}
        if served.kind.namespaced:
            given = metadata.get("namespace") or namespace
            if given != namespace:
                raise failures.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        return metadata

    def _views(self, served: Served) -> Views:
        """How the managers of an object see it."""

        def schema_of(api_version: str) -> schema.PatchNode | None:
            group, _, version = api_version.rpartition("/")
            found = self.registry.find(group, version, served.kind.plural)
            return found.patch_schema if found is not None else None

        return Views(convert, schema_of, served.storage.api_version)

    def create(
        self,
        served: Served,
        namespace: str,
        obj: Object,
        *,
        writer: Writer | None = None,
        managed: list[Object] | None = None,
        guard: Guard | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Stores a new object and returns it in the storage version. ``obj`` is changed.

        ``writer`` is who makes it, this server when None; ``managed`` the managers where they are known already;
        ``guard`` judges what is about to be stored.

        Raises:
            ApiFailure: it cannot be created; the Status says why.
            StoreError: the disk refused.
        """
        kind = served.kind
        metadata = self._identify(served, namespace, obj)
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        if not metadata.get("name"):
            prefix = metadata.get("generateName")
            if not prefix:
                cause = {
                    "reason": "FieldValueRequired",
                    "message": "Required value: name or generateName is required",
                    "field": "metadata.name",
                }
                raise failures.invalid(kind.group, kind.kind, "", [cause])
            metadata["name"] = podadmission.generated_name(str(prefix))
        name = str(metadata["name"])
        if metadata.get("resourceVersion"):
            raise ApiFailure(500, "resourceVersion should not be set on objects to be created", reason="")
        if namespace:
            self._check_namespace(kind.group, kind.plural, name, namespace)
        if served.is_custom:
            self._check_definition(served, name)
        at_ms = now_ms()
        admission.stamp_new(obj, at_ms)
        stored = convert(obj, served.storage.api_version)
        # Whoever creates a node may say what it has, as upstream lets them.
        if "status" in served.storage.subresources and served.store != "/nodes":
            stored.pop("status", None)
        served.default(stored)
        if guard is not None:
            guard(stored, None)
        if managed is None:
            managed = managedfields.after_create(stored, writer or _own(served), self._views(served), at_ms)
        if managed:
            stored["metadata"]["managedFields"] = managed
        admission.initial_state(self.storage, served.store, stored, at_ms)
        if self._counts_generations(served):
            stored["metadata"]["generation"] = 1
        if self.storage.get(served.store, namespace, name) is not None:
            raise failures.already_exists(kind.group, kind.plural, name)
        if served.store == "/services":
            admission.allocate_service(self.storage, stored, None, self._first_host)
        self._validate(served, stored, None)
        stored = _ordered(stored)
        if not dry_run:
            self.storage.put(served.store, namespace, name, stored)
        return stored

    def _check_namespace(self, group: str, plural: str, name: str, namespace: str) -> None:
        record = self.storage.get("/namespaces", "", namespace)
        if record is None:
            raise failures.not_found("", "namespaces", namespace)
        if record.object["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise failures.forbidden(group, plural, name, why, [cause])

    def _check_definition(self, served: Served, name: str) -> None:
        record = self.storage.get(CRD_STORE, "", f"{served.kind.plural}.{served.kind.group}")
        if record is not None and record.object["metadata"].get("deletionTimestamp"):
            why = "create not allowed while custom resource definition is terminating"
            raise failures.forbidden(served.kind.group, served.kind.plural, name, why)

    def _validate(self, served: Served, obj: Object, old: Object | None) -> None:
        found = served.validate(obj, old)
        if found:
            causes = [{"reason": c.reason, "message": c.body, "field": c.field} for c in found]
            group = "" if served.store == "/events" else served.kind.group  # they are the core's, whoever asks
            raise failures.invalid(group, served.kind.kind, obj["metadata"].get("name", ""), causes)

    def update(
        self,
        served: Served,
        namespace: str,
        name: str,
        obj: Object,
        *,
        subresource: str = "",
        writer: Writer | None = None,
        managed: list[Object] | None = None,
        guard: Guard | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Replaces the object, or its status, and returns it in the storage version. ``obj`` is changed.

        ``writer``, ``managed`` and ``guard`` as for ``create``.

        An update that changes nothing is not written and keeps its resourceVersion.

        Raises:
            ApiFailure: it cannot be updated; the Status says why.
            StoreError: the disk refused.
        """
        kind = served.kind
        record = self.get(served, namespace, name)
        old = record.object
        metadata = self._identify(served, namespace, obj)
        if metadata.setdefault("name", name) != name:
            raise failures.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        before = old["metadata"]
        given_rv, given_uid = metadata.get("resourceVersion"), metadata.get("uid")
        if given_uid and given_uid != before["uid"]:
            why = f"Precondition failed: UID in precondition: {given_uid}, UID in object meta: {before['uid']}"
            raise failures.conflict(kind.group, kind.plural, name, why)
        if given_rv and given_rv not in ("0", before["resourceVersion"]):
            raise failures.conflict(kind.group, kind.plural, name)
        given = None if subresource else metadata.get("managedFields")
        if served.is_custom and not given_rv:
            cause = {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: 0: must be specified for an update",
                "field": "metadata.resourceVersion",
            }
            raise failures.invalid(kind.group, kind.plural, name, [cause])
        new = convert(obj, served.storage.api_version)
        if subresource:
            # A status stands beside the stored object's other fields themselves, which nobody below changes.
            rest = {**old, "metadata": dict(before)} if subresource == "status" else record.copy()
            new = _only_subresource(rest, new, subresource, served.store == "apps/deployments")
        else:
            if "status" in served.storage.subresources:
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
            self._keep_metadata(new["metadata"], before)
        served.default(new, old)
        if guard is not None:
            guard(new, old)
        if served.store == "apps/daemonsets":
            admission.count_templates(new, old)
        if subresource == "status":
            admission.note_phase(served.store, new, old, now_ms())
        if served.store == "/services" and not subresource:
            admission.allocate_service(self.storage, new, old, self._first_host)
        if managed is None:
            views = self._views(served)
            managed = managedfields.after_update(old, new, given, writer or _own(served), views, now_ms())
        new["metadata"]["managedFields"] = managed
        if not managed:
            del new["metadata"]["managedFields"]
        if served.store == CRD_STORE and not subresource:
            new["status"] = admission.crd_status(new, now_ms())
        if before.get("deletionTimestamp"):
            added = set(new["metadata"].get("finalizers") or ()) - set(before.get("finalizers") or ())
            if added:
                cause = {
                    "reason": "FieldValueForbidden",
                    "message": "Forbidden: no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers {_go_strings(added)}",
                    "field": "metadata.finalizers",
                }
                raise failures.invalid(kind.group, kind.kind, name, [cause])
        if served.is_custom or subresource != "status":  # of built-in kinds a status has no rules
            self._validate(served, new, old)
        if (
            self._counts_generations(served)
            and subresource in _OF_THE_SPEC
            and _counted(served, new) != _counted(served, old)
        ):
            new["metadata"]["generation"] = int(before.get("generation") or 0) + 1
        new = _ordered(new)
        new["metadata"]["resourceVersion"] = before["resourceVersion"]
        if new == old:
            return new
        if dry_run:
            return new
        if self._is_finished(served, new):
            self._remove(served, namespace, name, new)
        else:
            self.storage.put(served.store, namespace, name, new)
        return new

    def apply(
        self,
        served: Served,
        namespace: str,
        name: str,
        config: Object,
        writer: Writer,
        *,
        force: bool,
        subresource: str = "",
        guard: Guard | None = None,
        dry_run: bool = False,
    ) -> tuple[bool, Object]:
        """Server-side apply. ``config`` is changed; ``guard`` as for ``create``.

        Returns:
            Whether it made the object, and the object in the storage version.

        Raises:
            ApiFailure: it conflicts with other managers, or the result is not valid.
            StoreError: the disk refused.
        """
        self._identify(served, namespace, config)["name"] = name
        record = self.storage.get(served.store, namespace, name)
        if record is None and subresource:
            raise failures.not_found(served.kind.group, served.kind.plural, name)
        if subresource:
            metadata = {key: value for key, value in config["metadata"].items() if key in ("name", "namespace")}
            config = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": metadata} | (
                {"status": config["status"]} if "status" in config else {}
            )
        elif "status" in served.storage.subresources:
            config.pop("status", None)
        views, live = self._views(served), record.object if record is not None else None
        try:
            made = managedfields.apply(live, config, writer, views, force=force, now_ms=now_ms())
        except schema.ListKeyError as exc:
            raise managedfields.untyped(config, str(exc)) from exc
        managed = made["metadata"].pop("managedFields", [])
        if live is None:
            return True, self.create(served, namespace, made, managed=managed, guard=guard, dry_run=dry_run)
        made = copy.deepcopy(made)  # it shares parts with the live object
        for field in ("resourceVersion", "uid"):  # these are preconditions
            if config["metadata"].get(field):
                made["metadata"][field] = config["metadata"][field]
        return False, self.update(
            served, namespace, name, made, subresource=subresource, managed=managed, guard=guard, dry_run=dry_run
        )

    def _keep_metadata(self, metadata: Object, before: Object) -> None:
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            if field in before:
                metadata[field] = before[field]
            else:
                metadata.pop(field, None)
        metadata.pop("selfLink", None)
        if "generateName" in before:
            metadata.setdefault("generateName", before["generateName"])

    def _counts_generations(self, served: Served) -> bool:
        return served.is_custom or admission.counts_generations(served.store, served.storage.subresources)

    def _is_finished(self, served: Served, obj: Object) -> bool:
        """A deleted object that nothing holds any more."""
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        if served.store == "/namespaces" and (obj.get("spec") or {}).get("finalizers"):
            return False
        return not metadata.get("deletionGracePeriodSeconds")

    def delete(
        self, served: Served, namespace: str, name: str, options: Object, *, dry_run: bool = False
    ) -> tuple[bool, Object]:
        """Deletes, or marks for deletion what finalizers or a grace period still hold.

        Returns:
            Whether it is gone, and its last state in the storage version.

        Raises:
            ApiFailure: no such object, or a precondition failed.
        """
        kind = served.kind
        record = self.get(served, namespace, name)
        obj = record.copy()
        metadata = obj["metadata"]
        preconditions = options.get("preconditions") or {}
        for field, shown, happened in (
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ):
            wanted = preconditions.get(field)
            if wanted and wanted != metadata[field]:
                why = f"the {shown} in the precondition ({wanted}) does not match the {shown} in record "
                why += f"({metadata[field]}). The object might have been {happened}"
                raise failures.conflict(kind.group, kind.kind, name, why)
        if served.store == "/namespaces" and name in admission.SYSTEM_NAMESPACES:
            raise failures.forbidden("", "namespaces", name, "this namespace may not be deleted")
        policy = options.get("propagationPolicy")
        if policy not in (None, "", "Background", "Foreground", "Orphan"):
            cause = {
                "reason": "FieldValueNotSupported",
                "message": f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", '
                '"nil"',
                "field": "propagationPolicy",
            }
            raise failures.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
        finalizers = [f for f in metadata.get("finalizers") or [] if f not in ("orphan", "foregroundDeletion")]
        held = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}.get(policy or "")
        if policy is None:
            finalizers = list(metadata.get("finalizers") or [])
        if held:
            finalizers.append(held)
        if served.store == CRD_STORE and _CRD_FINALIZER not in finalizers:
            finalizers.append(_CRD_FINALIZER)
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)
        grace = self._grace(served, obj, options)
        at_ms = now_ms()
        marked = bool(metadata.get("deletionTimestamp"))
        if not marked:
            metadata["deletionTimestamp"] = rfc3339(at_ms + grace * 1000)
            is_plain = served.store not in ("/namespaces", CRD_STORE)
            if is_plain:
                metadata["deletionGracePeriodSeconds"] = grace
            if is_plain and self._counts_generations(served):
                metadata["generation"] = int(metadata.get("generation") or 0) + 1
        elif grace < int(metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = rfc3339(at_ms + grace * 1000)
            metadata["deletionGracePeriodSeconds"] = grace
        if served.store == "/namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
        elif served.store == CRD_STORE and not marked:
            obj["status"]["conditions"] = [*(obj["status"].get("conditions") or ()), admission.terminating(at_ms)]
        finished = self._is_finished(served, obj)
        if finished and not marked and served.store != "/pods":  # it goes at once: nobody sees a mark
            obj = record.copy()
        if not dry_run:
            if finished:
                self._remove(served, namespace, name, obj)
            elif obj != record.object:
                self.storage.put(served.store, namespace, name, obj)
                if served.store == CRD_STORE:
                    self._remove_custom_objects(obj)
        return finished, obj

    def _grace(self, served: Served, obj: Object, options: Object) -> int:
        """Seconds; only a pod on a node has any."""
        if served.store != "/pods" or not (obj.get("spec") or {}).get("nodeName"):
            return 0
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        given = options.get("gracePeriodSeconds")
        if given is None:
            given = (obj.get("spec") or {}).get("terminationGracePeriodSeconds", 30)
        return max(0, int(given))

    def _remove(self, served: Served, namespace: str, name: str, last: Object) -> None:
        self.storage.delete(served.store, namespace, name, last)
        if served.is_custom and not self.storage.keys(served.store):
            self._forget_definition(served)

    def _remove_custom_objects(self, crd: Object) -> None:
        """Deletes the objects of a definition that is being deleted; the last one takes the definition along."""
        spec = crd["spec"]
        group, plural = spec["group"], spec["names"]["plural"]
        custom = [served for served in self.registry if (served.kind.group, served.kind.plural) == (group, plural)]
        for key in list(self.storage.keys(f"{group}/{plural}")) if not self.registry.has_builtin(group, plural) else ():
            self.delete(custom[0], *key, {})
        if custom and (not self.storage.keys(custom[0].store) or self.registry.has_builtin(group, plural)):
            self._forget_definition(custom[0])

    def _forget_definition(self, served: Served) -> None:
        """A definition that is being deleted goes when nothing else holds it."""
        name = f"{served.kind.plural}.{served.kind.group}"
        record = self.storage.get(CRD_STORE, "", name)
        if record is None or not record.object["metadata"].get("deletionTimestamp"):
            return
        crd = record.copy()
        left = [one for one in crd["metadata"].get("finalizers") or () if one != _CRD_FINALIZER]
        crd["metadata"]["finalizers"] = left
        if left:
            self.storage.put(CRD_STORE, "", name, crd)
        else:
            del crd["metadata"]["finalizers"]
            self.storage.delete(CRD_STORE, "", name, crd)


def _go_strings(texts: Iterable[str]) -> str:
    """As Go prints a list of strings."""
    return "[]string{" + ", ".join(f'"{text}"' for text in sorted(texts)) + "}"


def _own(served: Served) -> Writer:
    """This server, where it writes on its own account."""
    return Writer("kube-apiserver", UPDATE, served.group_version)


_FIELD_ORDER = ("apiVersion", "kind", "metadata")


def _ordered(obj: Object) -> Object:
    """apiVersion, kind and metadata first, status last, as people expect to read it."""
    ordered = {key: obj[key] for key in _FIELD_ORDER if key in obj}
    ordered.update((key, value) for key, value in obj.items() if key not in ordered and key != "status")
    if "status" in obj:
        ordered["status"] = obj["status"]
    return ordered


def _counted(served: Served, obj: Object) -> Object:
    """What a generation counts: all but metadata and status; of a Deployment the annotations too."""
    content = {key: value for key, value in obj.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    if served.store == "apps/deployments":
        content["annotations"] = obj["metadata"].get("annotations") or {}
    return content


def _only_subresource(old: Object, new: Object, subresource: str, annotated: bool) -> Object:
    """The old object with just the part that the subresource may change.

    A Deployment's status brings its annotations along: so its controller notes a revision without a new generation.
    """
    if annotated and subresource == "status" and new["metadata"].get("annotations"):
        old["metadata"]["annotations"] = new["metadata"]["annotations"]
    if subresource == "finalize":
        old.setdefault("spec", {})["finalizers"] = (new.get("spec") or {}).get("finalizers") or []
    elif subresource == "resize":
        old["spec"] = new.get("spec") or {}
    elif subresource == "ephemeralcontainers":
        old["spec"]["ephemeralContainers"] = (new.get("spec") or {}).get("ephemeralContainers") or []
    elif "status" in new:
        old["status"] = new["status"]
    else:
        old.pop("status", None)
    return old
