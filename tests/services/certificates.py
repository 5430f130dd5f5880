"""A certification authority for tests, and the certificates that it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: Path
    key: Path


class Authority:
    """Signs certificates; whoever trusts `ca` trusts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        own = self._files("ca")
        _openssl("req", "-x509", *_new_key(own, "chiffon test CA"), "-days", DAYS, "-out", own.cert)
        self._own = own

    @property
    def ca(self) -> Path:
        return self._own.cert

    def issue(self, name: str, *, host: str = "127.0.0.1") -> Certificate:
        """Return a certificate for a name, and for a host that is reached by its address."""
        issued = self._files(name)
        request, extension = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extension.write_text(f"subjectAltName=IP:{host}\n")
        _openssl("req", *_new_key(issued, name), "-out", request)
        signed_by = ("-CA", self._own.cert, "-CAkey", self._own.key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", DAYS, "-extfile", extension, "-out", issued.cert)
        return issued

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")


def _new_key(certificate: Certificate, name: str) -> tuple[str | Path, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", certificate.key, "-subj", f"/CN={name}")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
