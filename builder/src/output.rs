//! What people and programs see: text for people on stderr, one JSON document on stdout with `--json`.
