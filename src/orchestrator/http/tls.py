"""The certificate that HTTPS is served with."""

import ssl
from pathlib import Path

from common.errors import StartupRefused
from common.private import check_private


def check_tls(cert_file: Path | None, key_file: Path | None) -> None:
    """Return when HTTPS can be served with these files, or when none is named. Raises `StartupRefused`."""
    if cert_file is None and key_file is None:
        return
    if cert_file is None or key_file is None:
        raise StartupRefused("CHIFFON_TLS_CERT_FILE and CHIFFON_TLS_KEY_FILE belong together: set both or neither.")
    try:
        check_private(key_file, "The key of the certificate,")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        raise StartupRefused(
            f"HTTPS cannot be served with CHIFFON_TLS_CERT_FILE = {cert_file} and "
            f"CHIFFON_TLS_KEY_FILE = {key_file}: {error}."
        ) from None
