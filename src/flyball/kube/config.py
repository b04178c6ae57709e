"""From a kubeconfig, or a pod's service account, to what a client needs to connect."""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flyball.errors import ConfigError
from flyball.http.client import client_tls
from flyball.kube.auth import (
    Credential,
    Credentials,
    ExecCredentials,
    FixedCredentials,
    TokenFileCredentials,
    basic_header,
)

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Everything a client needs: where the server is, how to trust it, who we are.

    Attributes:
        server: base URL without a trailing slash.
        credentials: who we are.
        ca_pem: roots that vouch for the server, PEM; empty for the system's.
        insecure: the server's certificate is not checked.
        tls_server_name: the name expected in it, where that is not the host of ``server``.
        namespace: used where a namespaced object names none.
        origin: what to name in errors: the kubeconfig and context, or the service account.
    """

    server: str
    credentials: Credentials = field(default_factory=lambda: FixedCredentials(Credential()))
    ca_pem: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    namespace: str = "default"
    origin: str = ""

    def tls(self, credential: Credential) -> ssl.SSLContext:
        """A client context for one credential.

        Raises:
            ConfigError: the CA or the client certificate is not usable PEM.
        """
        try:
            if not credential.certificate_pem:
                return client_tls(ca_data=self.ca_pem or None, insecure_skip_verify=self.insecure)
            # ssl reads a certificate chain from files only.
            with tempfile.TemporaryDirectory(prefix="flyball-kube-") as folder:
                certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
                certificate.write_text(credential.certificate_pem)
                key.touch(mode=0o600)
                key.write_text(credential.key_pem)
                return client_tls(
                    ca_data=self.ca_pem or None,
                    cert_file=certificate,
                    key_file=key,
                    insecure_skip_verify=self.insecure,
                )
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigError(f"{self.origin}: the CA or client certificate cannot be used: {exc}") from exc


def default_paths() -> list[Path]:
    """The files of $KUBECONFIG, or ``~/.kube/config``."""
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def kubeconfig_access(path: str | Path | None = None, context: str | None = None) -> Access:
    """Access by a kubeconfig; without a path by $KUBECONFIG (a list that is merged) or ``~/.kube/config``.

    Raises:
        ConfigError: a file, context, cluster or user is missing or wrong.
    """
    paths = [Path(path)] if path is not None else default_paths()
    config = _merged(paths, required=path is not None)
    origin = "kubeconfig " + os.pathsep.join(str(item) for item in paths)
    name = context or config.current_context
    if not name:
        raise ConfigError(f"{origin}: no current-context; name one of: {_names(config.contexts)}")
    chosen = _entry(config.contexts, name, "context", origin)
    origin = f'{origin}, context "{name}"'
    cluster = _entry(config.clusters, str(chosen.value.get("cluster") or ""), "cluster", origin)
    server = str(cluster.value.get("server") or "").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise ConfigError(f'{origin}: cluster server "{server}" is not an http(s) URL')
    if cluster.value.get("proxy-url"):
        raise ConfigError(
            f'{origin}: cluster proxy-url "{cluster.value["proxy-url"]}" is not supported; '
            "remove it, or reach the server by a forwarded port"
        )
    ca_pem = _data_or_file(cluster, "certificate-authority", origin)
    insecure = bool(cluster.value.get("insecure-skip-tls-verify"))
    if insecure and ca_pem:
        raise ConfigError(f"{origin}: insecure-skip-tls-verify and a certificate-authority exclude each other")
    user_name = str(chosen.value.get("user") or "")
    user = _entry(config.users, user_name, "user", origin) if user_name else _Entry("", {}, Path())
    return Access(
        server=server,
        credentials=_credentials(user, cluster, ca_pem, origin),
        ca_pem=ca_pem,
        insecure=insecure,
        tls_server_name=str(cluster.value.get("tls-server-name") or ""),
        namespace=str(chosen.value.get("namespace") or "default"),
        origin=origin,
    )


def in_cluster_access(environment: Mapping[str, str] | None = None, directory: Path = SERVICE_ACCOUNT_DIR) -> Access:
    """Access by a pod's service account.

    Raises:
        ConfigError: this process does not run in a pod.
    """
    env = os.environ if environment is None else environment
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigError(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in a pod; give a kubeconfig"
        )
    try:
        ca_pem = (directory / "ca.crt").read_text()
    except OSError as exc:
        raise ConfigError(
            f"service account CA {directory / 'ca.crt'}: {exc.strerror}; mount the service account"
        ) from exc
    namespace_file = directory / "namespace"
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        credentials=TokenFileCredentials(directory / "token"),
        ca_pem=ca_pem,
        namespace=namespace_file.read_text().strip() if namespace_file.is_file() else "default",
        origin="service account",
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    value: Mapping[str, Any]
    directory: Path  # what relative paths in the entry are relative to


@dataclass(slots=True)
class _Config:
    contexts: dict[str, _Entry] = field(default_factory=dict)
    clusters: dict[str, _Entry] = field(default_factory=dict)
    users: dict[str, _Entry] = field(default_factory=dict)
    current_context: str = ""


def _merged(paths: list[Path], *, required: bool) -> _Config:
    """The first file to name a thing wins, as kubectl merges them; a listed file may be missing, a named one not."""
    config, found = _Config(), False
    for path in paths:
        try:
            text = path.read_text()
        except FileNotFoundError as exc:
            if required:
                raise ConfigError(f"kubeconfig {path} does not exist; write one or name another") from exc
            continue
        except OSError as exc:
            raise ConfigError(f"kubeconfig {path}: {exc.strerror}") from exc
        try:
            document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        except yaml.YAMLError as exc:
            raise ConfigError(f"kubeconfig {path} is not YAML: {exc}") from exc
        if not isinstance(document, dict):
            raise ConfigError(f"kubeconfig {path} is not a Config object")
        found = True
        config.current_context = config.current_context or str(document.get("current-context") or "")
        for plural, singular, target in (
            ("contexts", "context", config.contexts),
            ("clusters", "cluster", config.clusters),
            ("users", "user", config.users),
        ):
            items = document.get(plural) or []
            if not isinstance(items, list):
                raise ConfigError(f"kubeconfig {path}: {plural} is not a list")
            for item in items:
                value = item.get(singular) if isinstance(item, dict) else None
                if not isinstance(item, dict) or "name" not in item or not isinstance(value, dict | None):
                    raise ConfigError(f"kubeconfig {path}: an item of {plural} is not a name with a {singular}")
                target.setdefault(str(item["name"]), _Entry(str(item["name"]), value or {}, path.absolute().parent))
    if not found:
        raise ConfigError(f"no kubeconfig: none of {', '.join(map(str, paths))} exists; set KUBECONFIG or name one")
    return config


def _names(entries: Mapping[str, _Entry]) -> str:
    return ", ".join(sorted(entries)) or "(none)"


def _entry(entries: Mapping[str, _Entry], name: str, what: str, origin: str) -> _Entry:
    if name not in entries:
        raise ConfigError(f'{origin}: no {what} "{name}"; there is: {_names(entries)}')
    return entries[name]


def _data_or_file(entry: _Entry, key: str, origin: str) -> str:
    """The text of ``key-data`` (base64), which wins, or of the file that ``key`` names; ``""`` without either."""
    data, file = entry.value.get(f"{key}-data"), entry.value.get(key)
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise ConfigError(f"{origin}: {key}-data of {entry.name} is not base64 of PEM text") from exc
    if file:
        path = entry.directory / str(file)
        try:
            return path.read_text()
        except OSError as exc:
            raise ConfigError(f"{origin}: {key} {path}: {exc.strerror}") from exc
    return ""


def _credentials(user: _Entry, cluster: _Entry, ca_pem: str, origin: str) -> Credentials:
    value = user.value
    if value.get("auth-provider"):
        raise ConfigError(f'{origin}: user "{user.name}" has an auth-provider, which Kubernetes removed; use exec')
    certificate, key = _data_or_file(user, "client-certificate", origin), _data_or_file(user, "client-key", origin)
    if bool(certificate) != bool(key):
        raise ConfigError(f'{origin}: user "{user.name}" has a client certificate without its key, or the reverse')
    headers: dict[str, str] = {}
    if value.get("as"):
        headers["Impersonate-User"] = str(value["as"])
        if value.get("as-uid"):
            headers["Impersonate-Uid"] = str(value["as-uid"])
    if value.get("as-groups") or value.get("as-user-extra"):
        raise ConfigError(f'{origin}: user "{user.name}": as-groups and as-user-extra are not supported; remove them')
    base = Credential(headers, certificate, key)
    if value.get("exec"):
        described = {
            "server": cluster.value.get("server"),
            "tls-server-name": cluster.value.get("tls-server-name"),
            "insecure-skip-tls-verify": cluster.value.get("insecure-skip-tls-verify"),
            "certificate-authority-data": base64.b64encode(ca_pem.encode()).decode() if ca_pem else None,
        }
        return ExecCredentials(
            value["exec"], user.directory, {k: v for k, v in described.items() if v is not None}, base
        )
    if value.get("tokenFile"):
        return TokenFileCredentials(user.directory / str(value["tokenFile"]), base)
    if value.get("token"):
        headers["Authorization"] = f"Bearer {value['token']}"
    elif value.get("username"):
        headers["Authorization"] = basic_header(str(value["username"]), str(value.get("password") or ""))
    return FixedCredentials(base)
