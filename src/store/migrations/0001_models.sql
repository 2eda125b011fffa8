-- Trained models of the scorer. Times are nanoseconds since the Unix epoch.
CREATE TABLE models (
    id             BIGINT PRIMARY KEY NOT NULL,
    -- 'all', or 'group:' and the names of the source's groups.
    scope          TEXT   NOT NULL,
    state          TEXT   NOT NULL CHECK (state IN ('candidate', 'active', 'shadow', 'retired', 'rejected')),
    -- What the model that it took the place of was, for the way back.
    replaces       BIGINT,
    feature_schema BIGINT NOT NULL,
    created        BIGINT NOT NULL,
    window_from    BIGINT NOT NULL,
    window_to      BIGINT NOT NULL,
    records        BIGINT NOT NULL,
    excluded       BIGINT NOT NULL,
    seed           BIGINT NOT NULL,
    -- JSON objects.
    settings       TEXT   NOT NULL,
    metrics        TEXT   NOT NULL,
    -- Who or what caused its state, and why.
    who            TEXT   NOT NULL,
    reason         TEXT   NOT NULL,
    checksum       TEXT   NOT NULL,
    blob           BLOB   NOT NULL,
    -- Rows of ordinary traffic that it was trained on: what later candidates are held against.
    reference      BLOB   NOT NULL
);

CREATE UNIQUE INDEX models_active ON models (scope) WHERE state = 'active';
CREATE UNIQUE INDEX models_shadow ON models (scope) WHERE state = 'shadow';

-- Everything that became of models, in order.
CREATE TABLE model_events (
    number BIGINT PRIMARY KEY NOT NULL,
    model  BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    state  TEXT   NOT NULL,
    who    TEXT   NOT NULL,
    reason TEXT   NOT NULL
);

CREATE INDEX model_events_model ON model_events (model);
