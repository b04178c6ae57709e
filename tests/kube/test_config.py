"""Kubeconfigs, exec plugins and service accounts."""

import asyncio
import base64
import json
import sys

import pytest

from flyball.errors import ConfigError, UpstreamError
from flyball.kube import in_cluster_access, kubeconfig_access
from flyball.kube.auth import ExecCredentials, TokenFileCredentials


def write(path, **overrides):
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://c.example:6443/"}}],
        "users": [{"name": "u", "user": {"token": "t1"}}],
    }
    path.write_text(json.dumps({**config, **overrides}))
    return path


def headers(access):
    return asyncio.run(access.credentials.current()).headers


def test_a_context_names_its_server_namespace_and_user(tmp_path):
    access = kubeconfig_access(write(tmp_path / "config"))
    assert (access.server, access.namespace) == ("https://c.example:6443", "shop")
    assert headers(access) == {"Authorization": "Bearer t1"}


def test_files_of_kubeconfig_are_merged_and_the_first_wins(tmp_path, monkeypatch):
    first = tmp_path / "a" / "config"
    first.parent.mkdir()
    write(first, contexts=[], clusters=[], users=[{"name": "u", "user": {"tokenFile": "token"}}])
    (first.parent / "token").write_text("from-file\n")
    second = write(tmp_path / "second", **{"current-context": "other"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    access = kubeconfig_access()
    assert access.server == "https://c.example:6443"
    assert headers(access) == {"Authorization": "Bearer from-file"}


@pytest.mark.parametrize(
    ("overrides", "context", "wording"),
    [
        ({}, "two", 'no context "two"; there is: one'),
        ({"users": []}, None, 'no user "u"; there is: (none)'),
        ({"clusters": [{"name": "c", "cluster": {"server": "c:6443"}}]}, None, 'server "c:6443" is not an http(s) URL'),
        ({"clusters": [{"name": "c", "cluster": {"server": "https://c", "proxy-url": "http://p"}}]}, None, "proxy-url"),
        ({"users": [{"name": "u", "user": {"auth-provider": {"name": "gcp"}}}]}, None, "use exec"),
        ({"users": [{"name": "u", "user": {"client-certificate-data": "YQ=="}}]}, None, "without its key"),
        ({"users": "x"}, None, "users is not a list"),
        ({"current-context": ""}, None, "no current-context; name one of: one"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, overrides, context, wording):
    with pytest.raises(ConfigError) as caught:
        kubeconfig_access(write(tmp_path / "config", **overrides), context)
    assert wording in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        kubeconfig_access(tmp_path / "none")


def test_a_bad_ca_is_a_configuration_error(tmp_path):
    data = base64.b64encode(b"not pem").decode()
    cluster = {"server": "https://c", "certificate-authority-data": data, "tls-server-name": "kubernetes"}
    access = kubeconfig_access(write(tmp_path / "config", clusters=[{"name": "c", "cluster": cluster}]))
    assert access.tls_server_name == "kubernetes"
    with pytest.raises(ConfigError, match="cannot be used"):
        access.tls(asyncio.run(access.credentials.current()))


def plugin(tmp_path, status, version="client.authentication.k8s.io/v1", code=0):
    """An exec plugin that numbers its tokens by the runs it has had."""
    script = tmp_path / "plugin.py"
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    script.write_text(
        "import json, os, pathlib, sys\n"
        f"runs = pathlib.Path({str(tmp_path / 'runs')!r})\n"
        "n = int(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text(str(n))\n"
        f"(runs.parent / 'info').write_text(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"if {code}: print('no login', file=sys.stderr); sys.exit({code})\n"
        f"print(json.dumps({answer!r}).replace('RUN', str(n)))\n"
    )
    return {
        "apiVersion": version,
        "command": sys.executable,
        "args": [str(script)],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"])
def test_an_exec_plugin_is_run_once_until_it_is_rejected(tmp_path, version):
    async def main():
        spec = plugin(tmp_path, {"token": "tRUN"}, version)
        credentials = ExecCredentials(spec, tmp_path, {"server": "https://c"})
        for _ in range(2):
            assert (await credentials.current()).headers == {"Authorization": "Bearer t1"}
        credentials.reject()
        assert (await credentials.current()).headers == {"Authorization": "Bearer t2"}
        info = json.loads((tmp_path / "info").read_text())
        assert info["spec"] == {"interactive": False, "cluster": {"server": "https://c"}}

    asyncio.run(main())


def test_an_expired_exec_credential_is_fetched_again_and_may_be_a_certificate(tmp_path):
    async def main():
        status = {
            "clientCertificateData": "certRUN",
            "clientKeyData": "keyRUN",
            "expirationTimestamp": "2001-01-01T00:00:00Z",
        }
        credentials = ExecCredentials(plugin(tmp_path, status), tmp_path)
        assert (await credentials.current()).certificate_pem == "cert1"
        again = await credentials.current()
        assert (again.certificate_pem, again.key_pem, again.headers) == ("cert2", "key2", {})

    asyncio.run(main())


def test_an_exec_plugin_that_fails_says_what_it_said(tmp_path):
    credentials = ExecCredentials(plugin(tmp_path, {}, code=3), tmp_path)
    with pytest.raises(UpstreamError, match="exit code 3: no login"):
        asyncio.run(credentials.current())


def test_an_exec_plugin_that_is_not_there_gives_its_install_hint(tmp_path):
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./nope", "installHint": "Install nope."}
    with pytest.raises(ConfigError, match=r"Install nope\."):
        asyncio.run(ExecCredentials(spec, tmp_path).current())


def test_an_exec_plugin_of_an_old_version_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="v1alpha1"):
        ExecCredentials({"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}, tmp_path)


def test_a_service_account_is_read_and_its_token_again_after_a_rejection(tmp_path):
    for name, text in (("token", "a"), ("ca.crt", "PEM"), ("namespace", "shop")):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster_access(environment, tmp_path)
    assert (access.server, access.namespace, access.ca_pem) == ("https://[fd00::1]:443", "shop", "PEM")
    assert headers(access) == {"Authorization": "Bearer a"}
    (tmp_path / "token").write_text("b")
    access.credentials.reject()
    assert headers(access) == {"Authorization": "Bearer b"}
    (tmp_path / "token").write_text("")
    access.credentials.reject()
    assert headers(access) == {"Authorization": "Bearer b"}
    with pytest.raises(ConfigError, match="not in a pod"):
        in_cluster_access({}, tmp_path)


def test_an_empty_token_file_is_named(tmp_path):
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        asyncio.run(TokenFileCredentials(tmp_path / "token").current())
