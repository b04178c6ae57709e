"""Email: one message of a text and an HTML part over SMTP. Source: Alertmanager notify/email."""

import hashlib
import smtplib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, getaddresses, make_msgid

from flyball.alerting.globals import Globals
from flyball.alerting.receivers.sending import (
    NO_SECRET,
    DeliveryError,
    Notification,
    ReadSecret,
    Secret,
    missing,
    read_secret,
)
from flyball.alerting.templates import Expand
from flyball.errors import ConfigError
from flyball.http.client import tls_context
from flyball.model.clients import TLSConfig, read_tls
from flyball.model.reader import Reader

_SUBJECT = '{{ template "email.default.subject" . }}'
_HTML = '{{ template "email.default.html" . }}'


@dataclass(frozen=True, slots=True)
class Email:
    """Attributes:
    to, sender: templates of addresses, separated by commas; one sender.
    headers: templates by name; Subject, To and From may be among them.
    threading: how messages of a group hang together: empty for not at all, ``none`` for ever, ``daily``.
    """

    to: str
    sender: str
    host: str
    port: int
    hello: str = "localhost"
    username: str = ""
    password: Secret = NO_SECRET
    secret: Secret = NO_SECRET
    identity: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    html: str = _HTML
    text: str = ""
    require_tls: bool = True
    implicit_tls: bool = False
    tls: TLSConfig | None = None
    threading: str = ""
    send_resolved: bool = False
    kind: str = "email"

    def envelope(self, told: Notification, expand: Expand) -> tuple[str, list[str], bytes]:
        """The sender, the recipients and the message.

        Raises:
            TemplateError: a text fails.
            DeliveryError: an address is wrong.
        """
        data = told.shown()
        senders, recipients = (
            _addresses(expand(text, data), what) for text, what in ((self.sender, "from"), (self.to, "to"))
        )
        if len(senders) != 1:
            raise DeliveryError(f"from: {len(senders)} addresses where one is needed", retry=False)
        message = EmailMessage(policy=SMTP)
        for name, text in {"Subject": _SUBJECT, "To": self.to, "From": self.sender, **self.headers}.items():
            message[name] = expand(text, data).replace("\r", " ").replace("\n", " ")
        if "Message-Id" not in message:
            message["Message-Id"] = make_msgid(domain=self.hello)
        at = datetime.fromtimestamp(told.at_ms / 1000, UTC)
        message["Date"] = format_datetime(at)
        if self.threading:
            day = f"{at:%Y-%m-%d}" if self.threading == "daily" else ""
            root = f"<alert-{hashlib.sha256(told.group_key.encode()).hexdigest()[:16]}-{day}@alertmanager>"
            message["References"] = message["In-Reply-To"] = root
        if self.text:
            message.set_content(expand(self.text, data), cte="quoted-printable")
        if self.html:
            body = expand(self.html, data, html=True)
            if self.text:
                message.add_alternative(body, subtype="html", cte="quoted-printable")
            else:
                message.set_content(body, subtype="html", cte="quoted-printable")
                message.make_alternative()
        return senders[0], recipients, message.as_bytes()

    def send(self, told: Notification, expand: Expand, secret: ReadSecret, timeout_s: float) -> None:
        """Delivers it; blocks, so that it is called in a thread.

        Raises:
            TemplateError: a text fails.
            DeliveryError: the server is not there, or refuses.
        """
        sender, recipients, message = self.envelope(told, expand)
        try:
            with self._connection(timeout_s) as smtp:
                smtp.ehlo(self.hello)
                if self.require_tls and not self.implicit_tls:
                    if not smtp.has_extn("starttls"):
                        raise DeliveryError(
                            f"require_tls is true, but {self.host}:{self.port} offers no STARTTLS; set require_tls to "
                            "false if the way there is safe",
                            retry=True,
                        )
                    smtp.starttls(context=tls_context(self.tls or TLSConfig()))
                    smtp.ehlo(self.hello)
                if self.username and smtp.has_extn("auth"):
                    self._authenticate(smtp, secret)
                refused = smtp.sendmail(sender, recipients, message)
            if refused:
                raise DeliveryError(f"the server refused {', '.join(refused)}", retry=False, reason="clientError")
        except smtplib.SMTPResponseException as exc:
            said = exc.smtp_error.decode(errors="replace") if isinstance(exc.smtp_error, bytes) else exc.smtp_error
            temporary = 400 <= exc.smtp_code < 500 or exc.smtp_code < 0
            raise DeliveryError(f"{self.host}:{self.port} answered {exc.smtp_code}: {said}", retry=temporary) from exc
        except smtplib.SMTPRecipientsRefused as exc:
            answers = {to: f"{code} {said.decode(errors='replace')}" for to, (code, said) in exc.recipients.items()}
            temporary = any(400 <= code < 500 for code, _ in exc.recipients.values())
            raise DeliveryError(f"{self.host}:{self.port} refused {answers}", retry=temporary) from exc
        except (smtplib.SMTPException, OSError) as exc:
            raise DeliveryError(f"{self.host}:{self.port}: {exc or type(exc).__name__}", retry=True) from exc

    def _connection(self, timeout_s: float) -> smtplib.SMTP:
        if self.implicit_tls:
            return smtplib.SMTP_SSL(
                self.host, self.port, self.hello, timeout=timeout_s, context=tls_context(self.tls or TLSConfig())
            )
        return smtplib.SMTP(self.host, self.port, self.hello, timeout=timeout_s)

    def _authenticate(self, smtp: smtplib.SMTP, secret: ReadSecret) -> None:
        """By the first way that the server offers and there is a secret for."""
        password = secret(self.password) if self.password else ""
        cram = secret(self.secret) if self.secret else ""
        for way in smtp.esmtp_features["auth"].split():
            if way.upper() == "CRAM-MD5" and cram:
                smtp.user, smtp.password = self.username, cram
                smtp.auth("CRAM-MD5", smtp.auth_cram_md5)
                return
            if way.upper() == "PLAIN" and password:
                smtp.auth("PLAIN", lambda _=None: f"{self.identity}\0{self.username}\0{password}")
                return
            if way.upper() == "LOGIN" and password:
                smtp.user, smtp.password = self.username, password
                smtp.auth("LOGIN", smtp.auth_login, initial_response_ok=False)
                return
        raise DeliveryError(
            f"{self.host}:{self.port} offers {smtp.esmtp_features['auth'].strip()}; set auth_password, or auth_secret "
            "for CRAM-MD5",
            retry=True,
        )


def _addresses(text: str, what: str) -> list[str]:
    found = [address for _, address in getaddresses([text]) if address]
    for address in found:
        try:
            Address(addr_spec=address)
        except (ValueError, IndexError) as exc:
            raise DeliveryError(f'{what}: "{address}" is not an address: {exc}', retry=False) from exc
    if not found:
        raise DeliveryError(f'{what}: "{text}" has no address', retry=False)
    return found


def read(reader: Reader, defaults: Globals) -> Email:
    """
    Raises:
        ConfigError: a field is missing or wrong.
    """
    to, sender = reader.text("to", ""), reader.text("from", defaults.smtp_from)
    smarthost = reader.text("smarthost", defaults.smtp_smarthost)
    for value, name in ((to, "to"), (smarthost, "smarthost, or smtp_smarthost of global,"), (sender, "from")):
        if not value:
            raise missing(reader, name)
    host, colon, port = smarthost.rpartition(":")
    if not colon or not port.isdecimal():
        raise reader.error("smarthost", f'"{smarthost}" is not a host:port; write one like mail.example.com:587')
    headers: dict[str, str] = {}
    given = reader.take("headers") or {}
    if not isinstance(given, Mapping):
        raise reader.error("headers", "must be a mapping of names to text")
    for name, value in given.items():
        canonical = "-".join(part.capitalize() for part in str(name).split("-"))
        if canonical in headers:
            raise reader.error("headers", f'"{canonical}" is written twice; keep one')
        headers[canonical] = str(value)
    implicit = reader.take("force_implicit_tls")
    implicit = defaults.smtp_force_implicit_tls if implicit is None else implicit
    threading = reader.nested("threading", _read_threading) or ""
    if threading and {"References", "In-Reply-To"} & set(headers):
        raise reader.error("threading", "sets References and In-Reply-To; leave them out of headers")
    return Email(
        to=to,
        sender=sender,
        host=host.strip("[]"),
        port=int(port),
        hello=reader.text("hello", defaults.smtp_hello),
        username=reader.text("auth_username", defaults.smtp_auth_username),
        password=read_secret(reader, "auth_password", defaults.smtp_auth_password),
        secret=read_secret(reader, "auth_secret", defaults.smtp_auth_secret),
        identity=reader.text("auth_identity", defaults.smtp_auth_identity),
        headers=headers,
        html=reader.text("html", _HTML),
        text=reader.text("text", ""),
        require_tls=reader.flag("require_tls", defaults.smtp_require_tls),
        implicit_tls=port == "465" if implicit is None else bool(implicit),
        tls=reader.nested("tls_config", read_tls) or defaults.smtp_tls,
        threading=threading,
        send_resolved=reader.flag("send_resolved", False),
    )


def _read_threading(reader: Reader) -> str:
    enabled, by_date = reader.flag("enabled", False), reader.text("thread_by_date", "")
    if enabled and by_date not in ("none", "daily"):
        raise ConfigError(f'{reader.what}: thread_by_date: "{by_date}" is not known; write none or daily')
    return by_date if enabled else ""
