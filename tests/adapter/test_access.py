"""Who may ask: headers without the front proxy's certificate are air, whatever their form; rotation is followed."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flyball.adapter.access import Asked, FrontProxy, described, front_proxy_of, request_attributes
from flyball.http.client import client_tls
from flyball.kube.kinds import CONFIG_MAPS
from flyball.localcluster import pki

from .test_deployment import CONFIG
from .world import World, world

PATH = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests"
ADMIN = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}

#: Headers of somebody who has no front-proxy certificate.
SPOOFS: dict[str, Any] = {
    "plain": ADMIN,
    "lower case": {"x-remote-user": "admin", "x-remote-group": "system:masters"},
    "upper case": {"X-REMOTE-USER": "admin", "X-REMOTE-GROUP": "system:masters"},
    "mixed case": {"x-ReMoTe-UsEr": "admin", "X-rEmOtE-gRoUp": "system:masters"},
    "underscores": {"X_Remote_User": "admin", "X_Remote_Group": "system:masters"},
    "twice": [("X-Remote-User", "nobody"), ("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")],
    "extra": {**ADMIN, "X-Remote-Extra-Scopes": "all"},
    "uid": {**ADMIN, "X-Remote-Uid": "0"},
    "group in a list": {"X-Remote-User": "admin", "X-Remote-Group": "a,system:masters"},
    "impersonation": {"Impersonate-User": "admin", "Impersonate-Group": "system:masters"},
    "forwarded": {**ADMIN, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Client-Cert": "Subject=CN=front-proxy-client"},
    "certificate in a header": {**ADMIN, "X-SSL-Client-Verify": "SUCCESS", "X-Client-Cert": "front-proxy-client"},
    "pseudo headers": {**ADMIN, "X-HTTP2-Scheme": "https"},
    "basic": {**ADMIN, "Authorization": "Basic YWRtaW46YWRtaW4="},
    "a wrong token": {**ADMIN, "Authorization": "Bearer wrong"},
    "an empty token": {**ADMIN, "Authorization": "Bearer "},
}


def _tls(found: World, directory: Path, name: str) -> ssl.SSLContext:
    pair = directory / "pki" / f"{name}.crt", directory / "pki" / f"{name}.key"
    return client_tls(ca_file=found.directory / "certs" / "ca.crt", cert_file=pair[0], key_file=pair[1])


async def _status(found: World, headers: Any, tls: ssl.SSLContext | None = None) -> int:
    """The status, or 0 when the handshake is refused."""
    try:
        return (await found.ask(PATH, headers, tls))[0]
    except (aiohttp.ClientError, OSError):
        return 0


def test_spoofed_headers_are_refused_and_rotation_is_followed(tmp_path: Path) -> None:
    async def work(found: World) -> None:
        cluster = found.directory / "cluster"
        own = _tls(found, cluster, "front-proxy-client")

        async def admitted() -> bool:
            return await _status(found, ADMIN, own) == 404  # allowed, and there is no such metric

        await found.until(admitted)
        got = {name: await _status(found, headers) for name, headers in SPOOFS.items()}
        assert {name: code for name, code in got.items() if code not in (401, 403)} == {}
        # the certificate alone names nobody
        assert await _status(found, {}, own) == 403
        # a certificate of the right authority with a name that is not allowed
        assert await _status(found, ADMIN, _tls(found, cluster, "node")) in (0, 403)
        # another authority altogether, with the right name
        pki.ensure(tmp_path / "evil", 0)
        evil = _tls(found, tmp_path / "evil", "front-proxy-client")
        assert await _status(found, ADMIN, evil) in (0, 403)
        # the token of the API server's administrator is known to it
        token = {"Authorization": f"Bearer {(cluster / 'pki' / 'token').read_text().strip()}"}
        assert await _status(found, token) == 404
        # rotation: the authority is replaced in the ConfigMap, and with it who is trusted
        config_map = await found.client.get(CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
        config_map["data"]["requestheader-client-ca-file"] = (tmp_path / "evil/pki/front-proxy-ca.crt").read_text()
        connector = aiohttp.TCPConnector(ssl=own)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{found.adapter_port}", connector=connector) as kept:
            async with kept.get(PATH, headers=ADMIN) as response:
                assert response.status == 404
                await response.read()
            await found.client.update(CONFIG_MAPS, config_map)

            async def rotated() -> bool:
                return await _status(found, ADMIN, evil) == 404 and await _status(found, ADMIN, own) in (0, 403)

            await found.until(rotated)
            async with kept.get(PATH, headers=ADMIN) as response:  # a connection that was open all along
                assert response.status == 403

    async def main() -> None:
        async with world(tmp_path, CONFIG) as found:
            await work(found)

    asyncio.run(main())


def test_no_redirect_no_upgrade_and_no_other_method(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, CONFIG) as found:
            token = (found.pki("token")).read_text().strip()
            for path in (
                "/apis",
                "/apis/",
                "//apis",
                "/apis/custom.metrics.k8s.io//v1beta1",
                "/%2e%2e/apis",
                "/readyz/",
            ):
                headers = {"Authorization": f"Bearer {token}", "Connection": "Upgrade", "Upgrade": "h2c"}
                status, _ = await found.ask(path, headers)
                assert status in (200, 404), (path, status)
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
                status, _ = await found.ask(PATH, {"Authorization": f"Bearer {token}"}, method=method)
                assert status == 405

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("namespaces/ns/pods/*/m", "get resource pods/m name=* namespace=ns"),
        ("namespaces/ns/pods/web-1/m", "get resource pods/m name=web-1 namespace=ns"),
        ("nodes/n/m", "get resource nodes/m name=n namespace="),
        ("namespaces/ns/metrics/m", "get resource metrics/ name=m namespace=ns"),
        ("namespaces/ns/deployments.apps/d/m", "get resource deployments.apps/m name=d namespace=ns"),
        ("namespaces/ns/m", "list resource m/ name= namespace=ns"),
        ("pods", "list resource pods/ name= namespace="),
        ("namespaces/ns/pods", "list resource pods/ name= namespace=ns"),
        ("namespaces/ns/pods/p", "get resource pods/ name=p namespace=ns"),
    ],
)
def test_request_attributes_as_the_api_server_reads_them(path: str, wanted: str) -> None:
    found = request_attributes("GET", f"/apis/g/v1/{path}")["resourceAttributes"]
    text = f"{found['verb']} resource {found['resource']}/{found.get('subresource', '')}"
    assert f"{text} name={found.get('name', '')} namespace={found.get('namespace', '')}" == wanted
    assert (found["group"], found["version"]) == ("g", "v1")


def test_other_paths_are_non_resource() -> None:
    for path in ("/apis", "/apis/g/v1", "/metrics", "/openapi/v2"):
        assert request_attributes("GET", path) == {"nonResourceAttributes": {"path": path, "verb": "get"}}
    assert described(request_attributes("GET", "/metrics")) == 'get path "/metrics"'


def test_the_front_proxys_lists_are_the_clusters() -> None:
    data = {
        "requestheader-client-ca-file": "PEM",
        "requestheader-allowed-names": '["a","b"]',
        "requestheader-username-headers": '["X-User"]',
        "requestheader-extra-headers-prefix": '["X-Extra-"]',
    }
    found = front_proxy_of(data)
    assert found.allowed_names == ("a", "b") and found.username_headers == ("X-User",)
    assert found.group_headers == ("X-Remote-Group",)
    with pytest.raises(ValueError):
        front_proxy_of({**data, "requestheader-allowed-names": "["})


def test_without_an_authority_nobody_is_trusted() -> None:
    peer = {"subject": ((("commonName", "front-proxy-client"),),)}
    asked = Asked("GET", "/", (("x-remote-user", "admin"),), peer, b"not a certificate")
    assert FrontProxy().user(asked) is None
    assert FrontProxy("PEM").user(asked) is None
