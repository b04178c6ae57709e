"""How a receiver's server is verified."""

import ssl

from flyball.http.client import client_tls
from flyball.model.scrapeconfigs import TLSConfig


def tls_context(tls: TLSConfig) -> ssl.SSLContext:
    """``tls_config`` as a context; files are read anew.

    Raises:
        OSError: a file cannot be read, or is not a certificate (``ssl.SSLError``).
    """
    context = client_tls(
        ca_file=tls.ca_file or None,
        ca_data=tls.ca or None,
        cert_file=tls.cert_file or None,
        key_file=tls.key_file or None,
        insecure_skip_verify=tls.insecure_skip_verify,
    )
    if tls.min_version == "TLS13":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
