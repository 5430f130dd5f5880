"""A client trusts the known authorities where something is encrypted, and never believes a certificate otherwise."""

import ssl

from common.trust import trust_for


def test_over_https_the_known_authorities_are_trusted() -> None:
    assert trust_for("https://chiffon.example").get_ca_certs()


def test_a_client_of_plain_http_would_believe_no_certificate() -> None:
    trust = trust_for("http://127.0.0.1:8080")

    assert not trust.get_ca_certs()
    assert trust.verify_mode is ssl.CERT_REQUIRED
    assert trust.check_hostname
