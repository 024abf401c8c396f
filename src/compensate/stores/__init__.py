"""Where sagas are kept: the protocol (`base`), memory, files, SQLite."""
