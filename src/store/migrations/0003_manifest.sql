-- Every record has its place in the manifest: `bucket` is where it is listed, `tag` a MAC over all of its other columns.
-- They are filled by the program, which has the key.
ALTER TABLE connections ADD COLUMN bucket INTEGER;
ALTER TABLE connections ADD COLUMN tag BLOB;
ALTER TABLE tokens ADD COLUMN bucket INTEGER;
ALTER TABLE tokens ADD COLUMN tag BLOB;
ALTER TABLE apps ADD COLUMN bucket INTEGER;
ALTER TABLE apps ADD COLUMN tag BLOB;
ALTER TABLE tenants ADD COLUMN bucket INTEGER;
ALTER TABLE tenants ADD COLUMN tag BLOB;
ALTER TABLE disabled_agents ADD COLUMN bucket INTEGER;
ALTER TABLE disabled_agents ADD COLUMN tag BLOB;

CREATE INDEX connections_by_bucket ON connections (bucket);
CREATE INDEX tokens_by_bucket ON tokens (bucket);
CREATE INDEX apps_by_bucket ON apps (bucket);
CREATE INDEX tenants_by_bucket ON tenants (bucket);
CREATE INDEX disabled_agents_by_bucket ON disabled_agents (bucket);

-- The MAC of each bucket that has records.
CREATE TABLE buckets (
    bucket INTEGER PRIMARY KEY CHECK (bucket BETWEEN 0 AND 1023),
    mac    BLOB    NOT NULL CHECK (length(mac) = 32)
) STRICT;

-- The root key that the manifest's key comes from, and the MAC over all buckets and the generation.
ALTER TABLE meta ADD COLUMN manifest_key BLOB;
ALTER TABLE meta ADD COLUMN manifest_root BLOB;

-- Changes are found by comparing buckets.
DROP TABLE tombstones;
DROP INDEX connections_by_generation;
DROP INDEX tokens_by_generation;
