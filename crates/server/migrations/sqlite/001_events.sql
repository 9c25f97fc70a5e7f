-- The dictionary of correlation ids. A random text as a key of each event would touch a page of its
-- own per event; as a number it is small, and neighbours in time are neighbours in the index.
CREATE TABLE heads (
    id             INTEGER PRIMARY KEY,
    correlation_id TEXT    NOT NULL UNIQUE,
    next_seq       INTEGER NOT NULL          -- the seq that the correlation's next event gets
) STRICT;

CREATE TABLE events (
    id                INTEGER PRIMARY KEY,
    head              INTEGER NOT NULL REFERENCES heads (id),
    seq               INTEGER NOT NULL,      -- place within the head, from 0 without gaps
    event_id          BLOB    NOT NULL,      -- 16 bytes
    event_timestamp   INTEGER NOT NULL,      -- microseconds since 1970, UTC
    version           TEXT    NOT NULL,
    event_type        TEXT    NOT NULL,
    event_category    TEXT    NOT NULL,
    event_action      TEXT    NOT NULL,
    event_outcome     TEXT    NOT NULL,
    actor_type        TEXT    NOT NULL,
    actor_id          TEXT    NOT NULL,
    actor_ip          TEXT,
    resource_type     TEXT    NOT NULL,
    resource_id       TEXT    NOT NULL,
    namespace         TEXT,
    cluster_id        TEXT,
    severity          TEXT    NOT NULL,
    duration_ms       INTEGER,
    parent_event_id   BLOB,                  -- 16 bytes
    parent_event_date INTEGER,               -- days since 1970; the parent's own if it is known
    error_code        TEXT,
    error_message     TEXT,
    is_sensitive      INTEGER NOT NULL,
    producer          TEXT,
    producer_seq      INTEGER,               -- 64 bits without a sign, held in as many with one
    retention_days    INTEGER NOT NULL,
    digest            BLOB    NOT NULL,      -- SHA-256 over the canonical bytes
    event_data        TEXT    NOT NULL       -- byte for byte as sent; last, as it may be long
) STRICT;

-- Each index grows at its hot end only: ids and times rise, types and categories are few.
CREATE UNIQUE INDEX events_by_id       ON events (event_id);
CREATE UNIQUE INDEX events_by_head     ON events (head, seq);
CREATE        INDEX events_by_time     ON events (event_timestamp, event_id);
CREATE        INDEX events_by_type     ON events (event_type, event_timestamp);
CREATE        INDEX events_by_category ON events (event_category, event_timestamp);

-- The events under the contract's names and in its forms, for people and their tools.
CREATE VIEW audit_events AS
SELECT
    lower(substr(hex(event_id), 1, 8) || '-' || substr(hex(event_id), 9, 4) || '-'
        || substr(hex(event_id), 13, 4) || '-' || substr(hex(event_id), 17, 4) || '-'
        || substr(hex(event_id), 21))                                     AS event_id,
    version                                                               AS event_version,
    strftime('%Y-%m-%dT%H:%M:%S', event_timestamp / 1000000, 'unixepoch')
        || printf('.%06dZ', event_timestamp % 1000000)                    AS event_timestamp,
    date(event_timestamp / 1000000, 'unixepoch')                          AS event_date,
    event_type, event_category, event_action, event_outcome,
    actor_type, actor_id, actor_ip, resource_type, resource_id,
    heads.correlation_id                                                  AS correlation_id,
    CASE WHEN parent_event_id IS NOT NULL THEN
        lower(substr(hex(parent_event_id), 1, 8) || '-' || substr(hex(parent_event_id), 9, 4) || '-'
            || substr(hex(parent_event_id), 13, 4) || '-'
            || substr(hex(parent_event_id), 17, 4) || '-' || substr(hex(parent_event_id), 21))
    END                                                                   AS parent_event_id,
    date(parent_event_date * 86400, 'unixepoch')                          AS parent_event_date,
    namespace, cluster_id, event_data, severity, duration_ms, error_code, error_message,
    retention_days, is_sensitive, producer, producer_seq, seq,
    lower(hex(digest))                                                    AS digest
FROM events JOIN heads ON heads.id = events.head;
