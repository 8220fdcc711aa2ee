-- Names of deleted tenants' connections are free again, so the rule of unique names holds for the living ones only.
CREATE TABLE connections_new (
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
    -- When its tenant or namespace was deleted; it is purged some time after.
    orphaned_at       INTEGER,
    generation        INTEGER NOT NULL
) STRICT;
INSERT INTO connections_new
SELECT id, tenant, namespace, name, provider, definition, version, access_sealed, grant_sealed, access_issued_at,
       access_expires_at, state, state_reason, disabled, created_at, updated_at, NULL, generation
FROM connections;

-- A lease that is lost here is taken anew by whoever still refreshes.
DROP TABLE leases;
DROP TABLE connections;
ALTER TABLE connections_new RENAME TO connections;
CREATE INDEX connections_by_generation ON connections (generation);
CREATE UNIQUE INDEX connections_by_name ON connections (tenant, namespace, name) WHERE orphaned_at IS NULL;

CREATE TABLE leases (
    connection_id     TEXT    PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    owner_boot        TEXT    NOT NULL,
    owner_pid         INTEGER NOT NULL,
    owner_started     INTEGER NOT NULL,
    fence             INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    attempted_version INTEGER NOT NULL
) STRICT;

ALTER TABLE tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'opaque' CHECK (kind IN ('opaque', 'run', 'certificate'));
-- Lists, as JSON.
ALTER TABLE tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT '["use"]';
ALTER TABLE tokens ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]';
-- The token that made it; revoked with it.
ALTER TABLE tokens ADD COLUMN parent TEXT;
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;

-- Agents that were disabled: none of their tokens and certificates work.
CREATE TABLE disabled_agents (
    tenant      TEXT    NOT NULL,
    namespace   TEXT    NOT NULL,
    agent       TEXT    NOT NULL,
    disabled_at INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    PRIMARY KEY (tenant, namespace, agent)
) STRICT;

-- Tenants that were made by name. Others exist as long as they have records.
CREATE TABLE tenants (
    tenant     TEXT    PRIMARY KEY,
    created_at INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

-- Set without a key, so that it can be set in every emergency.
ALTER TABLE meta ADD COLUMN lockdown_at INTEGER;
