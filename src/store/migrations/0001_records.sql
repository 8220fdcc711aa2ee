-- One row: who this install is and how often it has changed.
CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    install_id TEXT    NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    -- The newest fencing number of any refresh lease; it outlives the leases.
    fence      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `generation` in a row is that of its last change.
CREATE TABLE connections (
    id                TEXT    PRIMARY KEY,
    tenant            TEXT    NOT NULL,
    namespace         TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    provider          TEXT    NOT NULL,
    definition        TEXT    NOT NULL,
    version           INTEGER NOT NULL CHECK (version > 0),
    access_sealed     BLOB    NOT NULL,
    grant_sealed      BLOB,
    access_issued_at  INTEGER,
    access_expires_at INTEGER,
    state             TEXT    NOT NULL CHECK (state IN ('active', 'attention')),
    state_reason      TEXT,
    disabled          INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    generation        INTEGER NOT NULL,
    UNIQUE (tenant, namespace, name)
) STRICT;
CREATE INDEX connections_by_generation ON connections (generation);

CREATE TABLE tokens (
    id                   TEXT    PRIMARY KEY,
    tenant               TEXT    NOT NULL,
    namespace            TEXT    NOT NULL,
    agent                TEXT    NOT NULL,
    run                  TEXT,
    digest               BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    previous_digest      BLOB    UNIQUE CHECK (length(previous_digest) = 32),
    previous_valid_until INTEGER,
    -- Lists, as JSON.
    connections          TEXT    NOT NULL,
    methods              TEXT    NOT NULL,
    paths                TEXT    NOT NULL,
    created_at           INTEGER NOT NULL,
    lifetime             INTEGER,
    expires_at           INTEGER,
    revoked_at           INTEGER,
    generation           INTEGER NOT NULL,
    CHECK ((previous_digest IS NULL) = (previous_valid_until IS NULL))
) STRICT;
CREATE INDEX tokens_by_scope ON tokens (tenant, namespace, created_at);
CREATE INDEX tokens_by_generation ON tokens (generation);

CREATE TABLE apps (
    tenant        TEXT    NOT NULL,
    provider      TEXT    NOT NULL,
    client_id     TEXT    NOT NULL,
    secret_sealed BLOB,
    redirect_uri  TEXT,
    version       INTEGER NOT NULL CHECK (version > 0),
    updated_at    INTEGER NOT NULL,
    generation    INTEGER NOT NULL,
    PRIMARY KEY (tenant, provider)
) STRICT;

-- What was deleted and when, so that a reader of changes learns of it.
CREATE TABLE tombstones (
    kind       TEXT    NOT NULL CHECK (kind IN ('connection', 'token')),
    id         TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
CREATE INDEX tombstones_by_generation ON tombstones (generation);

-- A row is a refresh that was begun and whose answer is not stored yet.
CREATE TABLE leases (
    connection_id     TEXT    PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    owner_boot        TEXT    NOT NULL,
    owner_pid         INTEGER NOT NULL,
    owner_started     INTEGER NOT NULL,
    fence             INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    attempted_version INTEGER NOT NULL
) STRICT;

-- Last use of connections and tokens; no part of the generation.
CREATE TABLE usage (
    id           TEXT    PRIMARY KEY,
    last_used_at INTEGER NOT NULL,
    address      TEXT
) STRICT;
