"""How a request is made and signed: the fields that scraping, remote write and Alertmanagers have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from flyball.errors import ConfigError
from flyball.operator.assets import Assets

Spec = Mapping[str, Any]
Document = dict[str, Any]


class ClientConfig:
    """Translates the client's fields of a spec.

    Args:
        namespace: where the Secrets are that the spec names.
        where: the spec; begins every error.
    """

    def __init__(self, assets: Assets, namespace: str, where: str) -> None:
        self._assets, self._namespace, self._where = assets, namespace, where

    def __str__(self) -> str:
        return self._where

    def of(self, spec: Spec) -> Document:
        """All of the client's fields that ``spec`` has, as it has them (no scrape class)."""
        return {
            **self.transport(spec),
            **self.credentials(spec),
            **self.tls(spec.get("tlsConfig")),
            **self.authorization(spec.get("authorization")),
        }

    def transport(self, spec: Spec) -> Document:
        """Redirects, HTTP/2 and proxies."""
        document: Document = {}
        for field, name in (("followRedirects", "follow_redirects"), ("enableHttp2", "enable_http2")):
            if spec.get(field) is not None:
                document[name] = spec[field]
        if spec.get("enableHTTP2") is not None:
            document["enable_http2"] = spec["enableHTTP2"]
        return document | self.proxy(spec)

    def proxy(self, spec: Spec) -> Document:
        document: Document = {}
        for field, name in (
            ("proxyUrl", "proxy_url"),
            ("noProxy", "no_proxy"),
            ("proxyFromEnvironment", "proxy_from_environment"),
        ):
            if spec.get(field) is not None:
                document[name] = spec[field]
        if spec.get("proxyConnectHeader") is not None:
            document["proxy_connect_header"] = {
                header: [self.secret(f"proxyConnectHeader.{header}", item) for item in selectors]
                for header, selectors in spec["proxyConnectHeader"].items()
            }
        return document

    def credentials(self, spec: Spec) -> Document:
        """Basic authentication, OAuth 2 and the bearer tokens that ``authorization`` replaced."""
        document: Document = {}
        basic = spec.get("basicAuth")
        if basic:
            document["basic_auth"] = {
                "username": self.secret("basicAuth.username", basic.get("username")),
                "password": self.secret("basicAuth.password", basic.get("password")),
            }
        if spec.get("oauth2"):
            document["oauth2"] = self._oauth2(spec["oauth2"])
        token = spec.get("bearerTokenSecret")
        if token and token.get("name"):  # old operators write {key: ""} for none
            document["bearer_token"] = self.secret("bearerTokenSecret", token)
        for field, name in (("bearerToken", "bearer_token"), ("bearerTokenFile", "bearer_token_file")):
            if spec.get(field):
                document[name] = spec[field]
        return document

    def authorization(self, section: Spec | None, default: Spec | None = None) -> Document:
        """``default`` is the scrape class': it lends its credentials where the section has none."""
        if not section and not default:
            return {}
        merged = dict(section or default or {})
        if section and default and not merged.get("credentials"):
            merged["credentials"] = default.get("credentials")
            if not merged["credentials"] and not merged.get("credentialsFile"):
                merged["credentialsFile"] = default.get("credentialsFile")
        document = {"type": str(merged.get("type") or "Bearer").strip()}
        if merged.get("credentials"):
            document["credentials"] = self.secret("authorization.credentials", merged["credentials"])
        if merged.get("credentialsFile"):
            document["credentials_file"] = merged["credentialsFile"]
        return {"authorization": document}

    def tls(self, section: Spec | None, default: Spec | None = None) -> Document:
        """``default`` is the scrape class': it lends its files where the section names nothing."""
        if not section and not default:
            return {}
        merged = dict(section or default or {})
        if section and default:
            for field, alternative in (("caFile", "ca"), ("certFile", "cert"), ("keyFile", "keySecret")):
                if not merged.get(field) and not merged.get(alternative):
                    merged[field] = default.get(field)
        document: Document = {}
        if merged.get("insecureSkipVerify") is not None:
            document["insecure_skip_verify"] = merged["insecureSkipVerify"]
        for field in ("ca", "cert"):
            reference = merged.get(field) or {}
            if reference.get("secret") or reference.get("configMap"):
                document.update([self._tls(f"tlsConfig.{field}", field, reference)])
        if merged.get("keySecret"):
            document.update([self._tls("tlsConfig.keySecret", "key", {"secret": merged["keySecret"]})])
        for field, name in (
            ("serverName", "server_name"),
            ("minVersion", "min_version"),
            ("maxVersion", "max_version"),
            ("caFile", "ca_file"),
            ("certFile", "cert_file"),
            ("keyFile", "key_file"),
        ):
            if merged.get(field):
                document[name] = merged[field]
        return {"tls_config": document}

    def sigv4(self, section: Spec | None) -> Document:
        """Requests signed for AWS."""
        if section is None:
            return {}
        document: Document = {}
        for field, name in (
            ("region", "region"),
            ("profile", "profile"),
            ("roleArn", "role_arn"),
            ("externalId", "external_id"),
            ("useFIPSSTSEndpoint", "use_fips_sts_endpoint"),
        ):
            if section.get(field) not in (None, ""):
                document[name] = section[field]
        if section.get("accessKey") and section.get("secretKey"):
            document["access_key"] = self.secret("sigv4.accessKey", section["accessKey"])
            document["secret_key"] = self.secret("sigv4.secretKey", section["secretKey"])
        return {"sigv4": document}

    def _oauth2(self, section: Spec) -> Document:
        client_id = self._read("oauth2.clientId", self._assets.secret_or_config_map, section.get("clientId") or {})
        document: Document = {
            "client_id": client_id,
            "client_secret": self.secret("oauth2.clientSecret", section.get("clientSecret")),
            "token_url": section.get("tokenUrl", ""),
        }
        if section.get("scopes"):
            document["scopes"] = list(section["scopes"])
        if section.get("endpointParams"):
            document["endpoint_params"] = dict(section["endpointParams"])
        return document | self.proxy(section) | self.tls(section.get("tlsConfig"))

    def secret(self, field: str, selector: Spec | None) -> str:
        """The value of a Secret's key.

        Raises:
            ConfigError: begins with the field.
        """
        return self._read(field, self._assets.secret, selector or {})

    def error(self, field: str, text: str) -> ConfigError:
        """Says where in the spec a field is wrong."""
        return ConfigError(f"{self._where}.{field}: {text}")

    def _read(self, field: str, read: Callable[[str, Spec], str], reference: Spec) -> str:
        try:
            return read(self._namespace, reference)
        except ConfigError as exc:
            raise ConfigError(f"{self._where}.{field}: {exc}") from exc

    def _tls(self, place: str, field: str, reference: Spec) -> tuple[str, str]:
        try:
            return self._assets.tls(field, self._namespace, reference)
        except ConfigError as exc:
            raise ConfigError(f"{self._where}.{place}: {exc}") from exc
