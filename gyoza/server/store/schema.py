"""The tables; one SQLite file holds everything.

`runs` holds what changes and what is searched; `run_data` what is large and written once or twice,
so that a progress event does not rewrite megabytes of inputs; `texts` what is too large for one
transaction. Times are seconds since 1970, UTC.
"""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

IS_QUEUED = "state = 'PENDING' AND not_before IS NULL"
"""May be claimed. Only a statement with these very words uses the index of the queue."""

SCHEMA_VERSION = 5
UPGRADES = {
    1: ("ALTER TABLE runs ADD COLUMN event_bytes INTEGER NOT NULL DEFAULT 0",),
    2: ("DROP INDEX IF EXISTS runs_waiting",),
    3: (
        "ALTER TABLE attempts ADD COLUMN logged_at FLOAT",
        "ALTER TABLE attempts ADD COLUMN log_complete INTEGER NOT NULL DEFAULT 0",
        "UPDATE attempts SET log_complete = 1 WHERE finished_at IS NOT NULL",
        "ALTER TABLE run_data ADD COLUMN inputs JSON NOT NULL DEFAULT '{}'",
        "UPDATE run_data SET inputs = json_extract(spec, '$.inputs'), "
        "spec = json_remove(spec, '$.inputs')",
        "ALTER TABLE runs ADD COLUMN spec_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN inputs_bytes INTEGER NOT NULL DEFAULT 0",
        "UPDATE runs SET (spec_bytes, inputs_bytes) = "
        "(SELECT length(spec), length(inputs) FROM run_data WHERE run_id = runs.id)",
    ),
    4: (
        "DROP INDEX IF EXISTS runs_queued",
        "ALTER TABLE runs ADD COLUMN created_by TEXT",
        "ALTER TABLE runs ADD COLUMN request_digest BLOB",
        "ALTER TABLE runs ADD COLUMN progress_events INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN kind_id INTEGER",
        "INSERT INTO kinds (constraints, tags, fits) "
        "SELECT DISTINCT constraints, tags, 1 FROM runs",
        "UPDATE runs SET kind_id = (SELECT id FROM kinds "
        "WHERE constraints = runs.constraints AND tags = runs.tags)",
        "UPDATE kinds SET (head_priority, head_seq) = (SELECT priority, seq FROM runs "
        f"WHERE {IS_QUEUED} AND kind_id = kinds.id ORDER BY priority DESC, seq LIMIT 1)",
        # Nobody knows which key they came with; most servers have but their own.
        "UPDATE runs SET idempotency_key = 'server ' || "
        "iif(op_definition IS NULL, 'run ', 'definition ') || idempotency_key",
        "ALTER TABLE events ADD COLUMN created_by TEXT",
        "ALTER TABLE definitions ADD COLUMN created_by TEXT",
        "ALTER TABLE api_keys ADD COLUMN tags JSON",
        "ALTER TABLE api_keys ADD COLUMN max_runs INTEGER",
        "ALTER TABLE api_keys ADD COLUMN expires_at FLOAT",
        "ALTER TABLE api_keys ADD COLUMN last_used_at FLOAT",
        "ALTER TABLE workers ADD COLUMN offer TEXT NOT NULL DEFAULT ''",
        "INSERT INTO deliveries (run_id, attributes) "
        "SELECT run_id, json_extract(spec, '$.event_delivery.attributes') FROM run_data "
        "WHERE run_id IN (SELECT id FROM runs WHERE topic != '')",
        "ALTER TABLE feed DROP COLUMN attributes",
    ),
}
"""What makes a database of a version one of the next; indexes that are missing are made after."""

HAS_ENDED = "state IN ('COMPLETED', 'FAILED', 'CANCELLED')"

metadata = MetaData()

definitions = Table(
    "definitions",
    metadata,
    Column("seq", Integer, primary_key=True),  # the latest deployed has the highest
    Column("id", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("created_by", Text),  # id of the API key, as everywhere
    Index("definitions_by_id", "id", "version", unique=True),
    sqlite_autoincrement=True,
)

kinds = Table(
    "kinds",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("constraints", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("fits", Integer, nullable=False),  # a worker that is known could have such a run
    Column("head_priority", Integer),  # of the best one that may be claimed; NULL: none may
    Column("head_seq", Integer),
    Index("kinds_by_needs", "constraints", "tags", unique=True),
)
"""What runs need, each once: whatever needs the same is one kind."""
Index(
    "kinds_queued",
    kinds.c.head_priority.desc(),
    kinds.c.head_seq,
    sqlite_where=text("fits = 1 AND head_seq IS NOT NULL"),
)
Index("kinds_parked", kinds.c.id, sqlite_where=text("fits = 0 AND head_seq IS NOT NULL"))

runs = Table(
    "runs",
    metadata,
    Column("seq", Integer, primary_key=True),  # order of creation
    Column("id", Text, nullable=False, unique=True),
    Column("idempotency_key", Text, unique=True),  # see `Once`
    Column("request_digest", LargeBinary),  # SHA-256 of what was asked for with it
    Column("created_by", Text),
    Column("state", Text, nullable=False),
    Column("progress", Integer, nullable=False, default=0),
    Column("priority", Integer, nullable=False),
    Column("image", Text, nullable=False),
    Column("op_definition", Text),
    Column("topic", Text, nullable=False),
    Column("constraints", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("kind_id", Integer),
    Column("max_attempts", Integer, nullable=False),
    Column("backoff_s", Float, nullable=False),
    Column("current_attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),  # attempts that ended FAILED
    Column("losses", Integer, nullable=False, default=0),  # attempts lost with their worker
    Column("worker_id", Text),  # who holds it, or held it last
    Column("assigned_at", Float),
    Column("lease_until", Float),  # only while a worker holds it
    Column("not_before", Float),  # only while it waits for its back-off
    Column("event_count", Integer, nullable=False, default=0),
    Column("event_bytes", Integer, nullable=False, default=0),  # of what its events say
    Column("progress_events", Integer, nullable=False, default=0),  # of its events
    Column("spec_bytes", Integer, nullable=False, default=0),  # of run_data.spec
    Column("inputs_bytes", Integer, nullable=False, default=0),
    Column("summary", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    sqlite_autoincrement=True,
)
Index(
    "runs_queued",
    runs.c.kind_id,
    runs.c.priority.desc(),
    runs.c.seq,
    sqlite_where=text(IS_QUEUED),
)
Index("runs_by_kind", runs.c.kind_id)
Index("runs_ended", runs.c.updated_at, sqlite_where=text(HAS_ENDED))
Index("runs_by_state", runs.c.state, runs.c.seq)
Index("runs_by_worker", runs.c.worker_id, runs.c.state)
Index("runs_by_topic", runs.c.topic, runs.c.seq)
Index("runs_by_image", runs.c.image, runs.c.seq)
Index("runs_by_definition", runs.c.op_definition, runs.c.seq)
Index("runs_leased", runs.c.lease_until, sqlite_where=text("lease_until IS NOT NULL"))
Index("runs_backing_off", runs.c.not_before, sqlite_where=text("not_before IS NOT NULL"))

run_data = Table(
    "run_data",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("spec", JSON, nullable=False),  # as asked for: command, env_vars, ...
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
)

texts = Table(
    "texts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.id")),  # NULL: nothing has it yet
    Column("digest", LargeBinary, nullable=False),  # SHA-256
    Index("texts_by_run", "run_id"),
)

text_parts = Table(
    "text_parts",
    metadata,
    Column("text_id", Text, ForeignKey("texts.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("text_id", "number"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker_id", Text),  # NULL: run by hand
    Column("state", Text, nullable=False),
    Column("progress", Integer, nullable=False, default=0),
    Column("last_seq", Integer, nullable=False, default=-1),  # of the worker's events
    Column("log_bytes", Integer, nullable=False, default=0),
    Column("logged_at", Float),  # when text last came
    Column("log_complete", Integer, nullable=False, default=0),  # its worker has sent all of it
    Column("summary", JSON, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    PrimaryKeyConstraint("run_id", "attempt"),
)

events = Table(
    "events",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("id", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("time", Float, nullable=False),
    Column("msg", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_by", Text),
    PrimaryKeyConstraint("run_id", "id"),
)

feed = Table(
    "feed",
    metadata,
    Column("cursor", Integer, primary_key=True),  # one writer: the order of commits
    Column("topic", Text, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("event_id", Integer, nullable=False),
    Index("feed_by_topic", "topic", "cursor"),
    Index("feed_by_run", "run_id"),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("attributes", JSON, nullable=False),  # go with each of its events in the feed
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("offset", Integer, nullable=False),  # in bytes of UTF-8
    Column("end", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "attempt", "offset"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("heartbeat", JSON, nullable=False),  # the last one, whole
    Column("offer", Text, nullable=False, default=""),  # what it has when it is idle, as JSON
    Column("drain", Integer, nullable=False, default=0),  # asked for by a person
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("time", Float, nullable=False),
    Index("changes_by_worker", "worker_id", "seq"),
    Index("changes_by_age", "time"),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("tags", JSON),  # that its workers may have; NULL: any
    Column("max_runs", Integer),  # that its workers may have together; NULL: any number
    Column("expires_at", Float),
    Column("last_used_at", Float),
)
