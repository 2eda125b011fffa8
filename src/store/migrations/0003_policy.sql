-- The policy, generation by generation. Times are nanoseconds since the Unix epoch.
CREATE TABLE generations (
    number     BIGINT PRIMARY KEY NOT NULL,
    at         BIGINT NOT NULL,
    who        TEXT   NOT NULL,
    why        TEXT   NOT NULL,
    -- How many things it changed.
    changes    BIGINT NOT NULL,
    -- Number of the generation that it goes back to, if it does.
    back_to    BIGINT,
    -- It goes back by itself at this time, unless somebody confirms it.
    confirm_by BIGINT
);

-- A thing as it was from one generation on, up to the one before another.
CREATE TABLE nouns (
    kind TEXT   NOT NULL,
    name TEXT   NOT NULL,
    born BIGINT NOT NULL,
    gone BIGINT,
    -- JSON.
    body TEXT   NOT NULL,
    PRIMARY KEY (kind, name, born)
);

CREATE UNIQUE INDEX nouns_now ON nouns (kind, name) WHERE gone IS NULL;
CREATE INDEX nouns_born ON nouns (born);
CREATE INDEX nouns_gone ON nouns (gone);

-- Changes that nobody has committed yet, in order.
CREATE TABLE drafts (
    number BIGINT PRIMARY KEY NOT NULL,
    at     BIGINT NOT NULL,
    who    TEXT   NOT NULL,
    change TEXT   NOT NULL
);

-- Who did what. Each row's hash covers the row and the hash before it.
CREATE TABLE audit (
    number   BIGINT PRIMARY KEY NOT NULL,
    at       BIGINT NOT NULL,
    who      TEXT   NOT NULL,
    role     TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    object   TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    previous TEXT   NOT NULL,
    hash     TEXT   NOT NULL
);

-- Connections that nobody had seen before, and suggestions: one row each, as JSON.
CREATE TABLE items (
    kind  TEXT   NOT NULL,
    id    TEXT   NOT NULL,
    state TEXT   NOT NULL,
    at    BIGINT NOT NULL,
    body  TEXT   NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE INDEX items_state ON items (kind, state, id);

-- What learning knows so far, what feedback has taught: one value each, as JSON.
CREATE TABLE facts (
    name TEXT PRIMARY KEY NOT NULL,
    at   BIGINT NOT NULL,
    body TEXT   NOT NULL
);
