"""What the server writes into new pods: their account's token, and a first status."""

from pathlib import Path
from typing import Any

from tests.localcluster_apiserver.support import PODS, Client, pod, run

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def account(name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, **fields}


def with_spec(name: str, **fields: Any) -> dict[str, Any]:
    made = pod(name)
    made["spec"] |= fields
    return made


def token_mounts(made: dict[str, Any]) -> list[list[str]]:
    """Of each container the volumes mounted where clients look for a token."""
    containers = [*made["spec"].get("initContainers", []), *made["spec"]["containers"]]
    return [[m["name"] for m in c.get("volumeMounts", []) if m["mountPath"] == TOKEN_PATH] for c in containers]


def test_every_container_finds_token_authority_and_namespace(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        init = [{"name": "first", "image": "python"}]
        _, made = await api("POST", PODS, with_spec("a", initContainers=init))
        (volume,) = made["spec"]["volumes"]
        assert volume["name"].startswith("kube-api-access-") and len(volume["name"]) == 21
        token, authority, namespace = volume["projected"]["sources"]
        assert token == {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
        assert authority["configMap"]["name"] == "kube-root-ca.crt"
        assert namespace["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.namespace"
        assert token_mounts(made) == [[volume["name"]], [volume["name"]]]
        _, again = await api("PUT", f"{PODS}/a", made)
        assert again["spec"] == made["spec"], "an update writes no second volume"

    run(tmp_path, steps)


def test_pods_and_accounts_may_do_without_a_token(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        await api("POST", ACCOUNTS, account("mute", automountServiceAccountToken=False))
        for name, fields, mounted in (
            ("pod-off", {"automountServiceAccountToken": False}, False),
            ("account-off", {"serviceAccountName": "mute"}, False),
            ("pod-on", {"serviceAccountName": "mute", "automountServiceAccountToken": True}, True),
        ):
            _, made = await api("POST", PODS, with_spec(name, **fields))
            assert bool(made["spec"].get("volumes")) is mounted, name
        own = {"name": "c", "image": "python", "volumeMounts": [{"name": "v", "mountPath": TOKEN_PATH}]}
        _, made = await api("POST", PODS, with_spec("own", containers=[own], volumes=[{"name": "v"}]))
        assert token_mounts(made) == [["v"]] and len(made["spec"]["volumes"]) == 1

    run(tmp_path, steps)


def test_an_account_must_exist_and_lends_its_pull_secrets(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        status, body = await api("POST", PODS, with_spec("lost", serviceAccountName="nosuch"))
        assert status == 403 and body["message"] == (
            'pods "lost" is forbidden: error looking up service account default/nosuch: '
            'serviceaccount "nosuch" not found'
        )
        await api("POST", ACCOUNTS, account("puller", imagePullSecrets=[{"name": "registry"}]))
        _, made = await api("POST", PODS, with_spec("pulls", serviceAccountName="puller"))
        assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]

    run(tmp_path, steps)


def test_a_gated_pod_says_that_it_waits(tmp_path: Path) -> None:
    async def steps(api: Client) -> None:
        _, made = await api("POST", PODS, with_spec("gated", schedulingGates=[{"name": "example.com/wait"}]))
        (condition,) = made["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("PodScheduled", "SchedulingGated")

    run(tmp_path, steps)
