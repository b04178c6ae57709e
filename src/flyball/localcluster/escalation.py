"""Nobody gives by a role or a binding what they have not, unless a role lets them ``escalate`` or ``bind``.

Source: kubernetes pkg/registry/rbac (role, rolebinding, escalation_check.go), pkg/registry/rbac/validation,
component-helpers auth/rbac/validation/policy_comparator.go.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flyball.localcluster import failures
from flyball.localcluster.requests import Request
from flyball.localcluster.rights import GROUP, MASTERS, Act, Rights, rule_allows
from flyball.localcluster.storage import Storage

Object = dict[str, Any]
Guard = Callable[[Object, Object | None], None]
"""Judges an object that is about to be stored, given it and the one that it replaces; raises ApiFailure."""

_EVERYTHING = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_FREE_METADATA = ("ownerReferences", "finalizers", "managedFields")  # what lets an object be collected in the end


def guard_of(request: Request, plural: str, namespace: str, storage: Storage, rights: Rights) -> Guard | None:
    """Who judges a write of roles or of bindings; None for other kinds, and for those who may everything.

    Args:
        plural: of the kind in ``rbac.authorization.k8s.io``.
    """
    if MASTERS in request.groups:
        return None
    giver = _Giver(request, plural, namespace, storage, rights)
    if plural in ("roles", "clusterroles"):
        return giver.judge_role
    return giver.judge_binding if plural in ("rolebindings", "clusterrolebindings") else None


class _Giver:
    """A user who writes a role or a binding."""

    def __init__(self, request: Request, plural: str, namespace: str, storage: Storage, rights: Rights) -> None:
        self._request, self._plural, self._namespace = request, plural, namespace
        self._storage, self._rights = storage, rights

    def judge_role(self, role: Object, old: Object | None) -> None:
        """
        Raises:
            ApiFailure: 403, it holds rights that the user has not.
        """
        name = "" if self._request.method == "POST" else role["metadata"]["name"]
        act = Act("escalate", GROUP, self._plural, self._namespace, name)
        if _is_untouched(role, old) or self._may(act):
            return
        self._demand(role, role.get("rules") or ())
        if any(_aggregates(one) for one in (role, old or {})) and self._missing(_EVERYTHING):
            raise self._refusal(role, "must have cluster-admin privileges to use the aggregationRule")

    def judge_binding(self, binding: Object, old: Object | None) -> None:
        """
        Raises:
            ApiFailure: 403, its role holds rights that the user has not; 404, there is no such role.
        """
        role = binding["roleRef"]
        plural, where = ("roles", self._namespace) if role["kind"] == "Role" else ("clusterroles", "")
        if _is_untouched(binding, old) or self._may(Act("bind", GROUP, plural, self._namespace, role["name"])):
            return
        found = self._storage.get(f"{GROUP}/{plural}", where, role["name"])
        if found is None:
            raise failures.not_found(GROUP, self._plural, role["name"])  # upstream too names what was asked for
        self._demand(binding, found.object.get("rules") or ())

    def _may(self, act: Act) -> bool:
        return self._rights.allows(self._request.user, self._request.groups, act)[0]

    def _missing(self, rules: Iterable[Object]) -> list[Act]:
        """What the rules allow and the user may not."""
        own = [rule for rule, _ in self._own() if rule is not None]
        return [act for rule in rules for act in _acts(rule) if not any(rule_allows(one, act) for one in own)]

    def _own(self) -> Iterator[tuple[Object | None, str]]:
        return self._rights.rules(self._request.user, self._request.groups, self._namespace)

    def _demand(self, obj: Object, rules: Iterable[Object]) -> None:
        missing = self._missing(rules)
        if not missing:
            return
        shown = "\n".join(sorted(set(_shown(missing))))
        why = f'user "{self._request.user}" (groups={_go_list(self._request.groups)}) is attempting to grant RBAC '
        why += f"permissions not currently held:\n{shown}"
        problems = [f"{self._plural}.{source.partition('.')[2]}" for rule, source in self._own() if rule is None]
        if problems:
            text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            why += f"; resolution errors: [{text}]"
        raise self._refusal(obj, why)

    def _refusal(self, obj: Object, why: str) -> failures.ApiFailure:
        return failures.forbidden(GROUP, self._plural, obj["metadata"]["name"], why)


def _acts(rule: Object) -> Iterator[Act]:
    """The single things that a rule allows."""
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in rule.get("verbs") or ():
                for name in rule.get("resourceNames") or ("",):
                    yield Act(verb, group, resource, name=name)
    for url in rule.get("nonResourceURLs") or ():
        for verb in rule.get("verbs") or ():
            yield Act(verb, path=url)


def _shown(acts: Iterable[Act]) -> Iterator[str]:
    """As rules, one for each resource with all its verbs."""
    verbs: dict[tuple[str, str, str], list[str]] = {}
    for act in acts:
        if act.resource:
            verbs.setdefault((act.group, act.resource, act.name), []).append(act.verb)
        else:
            yield f"{{NonResourceURLs:{_go_list([act.path])}, Verbs:{_go_list([act.verb])}}}"
    for (group, resource, name), allowed in verbs.items():
        named = f", ResourceNames:{_go_list([name])}" if name else ""
        yield f"{{APIGroups:{_go_list([group])}, Resources:{_go_list([resource])}{named}, Verbs:{_go_list(allowed)}}}"


def _go_list(texts: Iterable[str]) -> str:
    """As Go's ``%q`` prints a list of strings."""
    return "[" + " ".join(json.dumps(text, ensure_ascii=False) for text in texts) + "]"


def _aggregates(role: Object) -> bool:
    return bool((role.get("aggregationRule") or {}).get("clusterRoleSelectors"))


def _is_untouched(new: Object, old: Object | None) -> bool:
    """Whether a write changes nothing but what holds the object or owns it."""
    return old is not None and _judged(new) == _judged(old)


def _judged(obj: Object) -> Object:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _FREE_METADATA}
    return {**obj, "metadata": metadata}
