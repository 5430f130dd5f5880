"""Bytes that were made beforehand, with OpenSSL, sha256sum and basenc, for what the program must compute itself."""

from datetime import UTC, datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.confinement import Confinement
from common.messages import GrantedTask, WorkRequest
from common.policy.model import Effect
from common.signing.keys import PrivateKey
from orchestrator.events.model import Event

AT = datetime(2026, 11, 25, 12, 0, 0, 1, tzinfo=UTC)

# The first key of RFC 8032, section 7.1.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(SECRET))
KEY_ID = "21fe31dfa154a261626bf854046fd227"
PUBLIC_PEM = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""

AGENT = UUID(int=9)
CREDIT = 10
GRANT = GrantedTask(
    claim_id=UUID(int=1),
    work=WorkRequest(
        task_id=UUID(int=2),
        work_type="shell_script",
        parameters={"n": 100.0, "argv": ["true"]},
        hints={"note": "ä"},
    ),
    trace_id=UUID(int=3),
    request_id=UUID(int=4),
    attempt=5,
    lease_seconds=60.0,
    max_output_bytes=7,
    target="infra",
    policy_version="1-abc",
    effect=Effect.READ,
    approval_id=UUID(int=8),
    confinement=Confinement(network_off=True, max_open_files=16),
)
# SHA-256 over {"hints":{"note":"ä"},"parameters":{"argv":["true"],"n":100},"policy_version":"1-abc","target":"infra",
# "work_type":"shell_script"}, without the line break.
DIGEST = "ee37cf28c7b382451edb389752a6c6f07f16a955484f668d8ba7a98802aed471"
GRANT_CLAIMS = (
    '{"aud":"00000000-0000-0000-0000-000000000009","iat":1795608000,"exp":1795608060,"credit":10,"tasks":['
    '{"task_id":"00000000-0000-0000-0000-000000000002","claim_id":"00000000-0000-0000-0000-000000000001",'
    '"request_id":"00000000-0000-0000-0000-000000000004","trace_id":"00000000-0000-0000-0000-000000000003",'
    f'"attempt":5,"lease_seconds":60.0,"max_output_bytes":7,"digest":"{DIGEST}","target":"infra",'
    '"policy_version":"1-abc","effect":"read","approval_id":"00000000-0000-0000-0000-000000000008",'
    '"confinement":{"network_off":true,"sandbox":false,"own_user":false,"max_memory_bytes":null,'
    '"max_cpu_seconds":null,"max_open_files":16,"max_processes":null,"max_file_bytes":null}}]}'
)
# Ed25519 over the base64url of {"alg":"EdDSA","kid":KEY_ID,"typ":"chiffon-grant+jwt"} and of these claims.
GRANT_MADE = "F8AMe5Q1fZ-QVmtFdDqguhJDUGwsQt7ZC1Y8a2sscYq5wMc6V1r4Zt4zf_IYeFtWg9olNxP_G6T4J0C8gXG-AQ"

# What follows the hash BEFORE as event 7, and once more as event 8.
BEFORE = bytes(range(32))
EVENT = Event(
    seq=7,
    at=AT,
    kind="task.claimed",
    task_id=UUID(int=1),
    trace_id=UUID(int=2),
    request_id=UUID(int=3),
    agent_id=UUID(int=4),
    attempt=5,
    actor='a "quoted" ä',
    data={"b": 1.0, "a": [None, "ü"]},
)
# SHA-256 over {"actor":"a \"quoted\" ä","agent_id":"…4","attempt":5,"data":{"a":[null,"ü"],"b":1},
# "kind":"task.claimed","request_id":"…3","task_id":"…1","trace_id":"…2"}, the ids written out, without the line break.
LEAF = bytes.fromhex("3d144c5aad4534677a4c850a4dff412aeb286d8636e44cdc315c931490a0baf5")
# SHA-256 over BEFORE, 7 and the microseconds since 1970 in eight bytes each, and LEAF; then the same over HASH and 8.
HASH = bytes.fromhex("06b424c19a878c33c8c6fe1800af1d75518b8762ae00598cb3537fb36b03fd80")
NEXT_HASH = bytes.fromhex("3fb74138ec69e143f25472f02b3a8e58c62bd9e016128a5e0f827c4f17831bd6")

# The checkpoint of event 7, whose claims are {"aud":"chiffon-auditors","iat":…,"seq":7,"hash":…}.
CHECKPOINT = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6IjIxZmUzMWRmYTE1NGEyNjE2MjZiZjg1NDA0NmZkMjI3IiwidHlwIjoiY2hpZmZvbi1jaGVja3BvaW50K2"
    "p3dCJ9.eyJhdWQiOiJjaGlmZm9uLWF1ZGl0b3JzIiwiaWF0IjoxNzk1NjA4MDAwLCJzZXEiOjcsImhhc2giOiIwNmI0MjRjMTlhODc4YzMzYzh"
    "jNmZlMTgwMGFmMWQ3NTUxOGI4NzYyYWUwMDU5OGNiMzUzN2ZiMzZiMDNmZDgwIn0.xjh7O8Kw-vvFHNIX22a-kvGSUDPA845X1dUb6WzKB1NV7"
    "CI4qFpoxIanpWFSu6Q-_XmhR49c_E-S8ed35nD2Dw"
)

# What signs {"aud":"all","iat":1,"exp":2} as a grant.
SIGNATURE = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6IjIxZmUzMWRmYTE1NGEyNjE2MjZiZjg1NDA0NmZkMjI3IiwidHlwIjoiY2hpZmZvbi1ncmFudCtqd3QifQ"
    ".eyJhdWQiOiJhbGwiLCJpYXQiOjEsImV4cCI6Mn0.chLJVGJhjp-ZJVGkQofBGq9Bl5xZe6SaVbJAmWQqMmcgasYSn23-nxP0Mtm2wNlnlfFiS"
    "vhgYQVgLmNoTnwoCw"
)
