"""The audit log proves itself: every event carries the hash of all before it.

Expand step: the old program goes on working beside it. What it writes after this has no hash, and the verifier says so;
see docs/how-to/check-the-audit-log.md.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # Null for what was written before there was a chain; no rewrite.
    "ALTER TABLE event ADD COLUMN hash bytea",
    "ALTER TABLE event_head ADD COLUMN hash bytea",
    # Where the chain begins: behind the event `seq`, from this hash. A random start tells one ledger's chain from
    # another's. The newest row counts; retention adds one.
    """
    CREATE TABLE event_start (
        seq  bigint      PRIMARY KEY,
        hash bytea       NOT NULL,
        at   timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    INSERT INTO event_start (seq, hash)
    SELECT seq, sha256(convert_to('chiffon ' || gen_random_uuid()::text, 'UTF8')) FROM event_head
    """,
    "UPDATE event_head SET hash = event_start.hash FROM event_start",
    "ALTER TABLE event_head ALTER COLUMN hash SET NOT NULL",
    # The hashes of new events, behind the hash of the newest one: see events/chain.py. One call for all of a statement.
    """
    CREATE FUNCTION event_chain(hash bytea, seq bigint, at timestamptz, leaves bytea[]) RETURNS bytea[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    DECLARE
        leaf   bytea;
        hashes bytea[] := '{}';
        micros bytea := int8send((extract(epoch FROM at) * 1000000)::bigint);
    BEGIN
        FOREACH leaf IN ARRAY leaves LOOP
            seq := seq + 1;
            hash := sha256(hash || int8send(seq) || micros || leaf);
            hashes := hashes || hash;
        END LOOP;
        RETURN hashes;
    END $$
    """,
    # Against mistakes. Who owns the table can take it away: against that are the chain and its checkpoints.
    """
    CREATE FUNCTION event_keep() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'DELETE' OR current_setting('chiffon.retention', true) IS DISTINCT FROM 'on' THEN
            RAISE insufficient_privilege USING MESSAGE = 'events are never changed or removed';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER event_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION event_keep()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
