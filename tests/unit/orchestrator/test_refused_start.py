"""Settings with which an orchestrator would do less than they say are refused at its start."""

from pathlib import Path

import pytest

from common.clock import SystemClock
from common.errors import StartupRefused
from orchestrator.http.tls import tls_context
from orchestrator.signing.signer import open_signer


@pytest.mark.parametrize(("cert", "key"), [(Path("cert.pem"), None), (None, Path("key.pem"))])
def test_half_of_a_certificate_is_refused_and_never_served_without_tls(cert: Path | None, key: Path | None) -> None:
    with pytest.raises(StartupRefused, match="belong together"):
        tls_context(cert, key)


def test_where_signatures_are_required_there_is_a_directory_of_keys() -> None:
    with pytest.raises(StartupRefused, match="There are no signing keys"):
        open_signer(None, SystemClock(), is_required=True)
    assert open_signer(None, SystemClock(), is_required=False) is None


def test_a_directory_without_a_key_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    with pytest.raises(StartupRefused, match="There is no signing key"):
        open_signer(tmp_path, SystemClock(), is_required=False)
