-- Version 2: how often a saga's process died.

ALTER TABLE sagas ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sagas ADD COLUMN died INTEGER NOT NULL DEFAULT 0;

-- The end of an owner that left is no death.
ALTER TABLE owners ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;
