-- The schema of today. It equals all migrations in turn; a test compares them.

CREATE TABLE dags (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE sagas (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status TEXT NOT NULL,
    paused INTEGER NOT NULL,
    parked INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT,
    last_seq INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    deaths INTEGER NOT NULL DEFAULT 0,
    died INTEGER NOT NULL DEFAULT 0
);

-- For claims: few sagas are neither completed nor rolled back.
CREATE INDEX sagas_open ON sagas (created_at, id) WHERE status <> 'completed' AND status <> 'rolled_back';
CREATE INDEX sagas_owned ON sagas (owner) WHERE owner IS NOT NULL;
CREATE INDEX sagas_newest ON sagas (created_at DESC, id);

-- A saga's log lies together on disk; the key keeps two events from sharing a seq.
CREATE TABLE events (
    saga INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at REAL NOT NULL,
    type TEXT NOT NULL,
    node TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (saga, seq)
) WITHOUT ROWID;

CREATE TABLE owners (
    owner TEXT NOT NULL PRIMARY KEY,
    lease_until REAL NOT NULL,
    drained INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- AUTOINCREMENT: the number of a request that went with its saga is never given again.
CREATE TABLE requests (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    saga INTEGER NOT NULL,
    verb TEXT NOT NULL,
    data BLOB NOT NULL,
    at REAL NOT NULL,
    error TEXT
);

CREATE INDEX requests_open ON requests (saga) WHERE error IS NULL;
