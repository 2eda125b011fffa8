-- Who may use the API. Times are nanoseconds since the Unix epoch.
CREATE TABLE tokens (
    name      TEXT   PRIMARY KEY NOT NULL,
    role      TEXT   NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- SHA-256 of the token in hexadecimal digits; the token itself is kept nowhere.
    digest    TEXT   NOT NULL UNIQUE,
    created   BIGINT NOT NULL,
    -- Left out: never.
    expires   BIGINT,
    last_used BIGINT
);
