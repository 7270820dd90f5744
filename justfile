# Common commands. `just` lists them.

_default:
    @just --list

# Install the packages that building and testing need (as root, Debian 12 or newer)
setup:
    images/prerequisites test

# Compile everything
check:
    cargo check --workspace --all-targets

# Build the builder and the agent
build:
    cargo build --release -p adamant
    cargo build --profile agent -p adamant-agent

# Run the unit tests
test-unit:
    cargo test --workspace --exclude adamant-tests

# Run all tests (20 minutes); `just test --all` runs the long form
test *ARGS:
    tests/run {{ARGS}}

# Check format, clippy, docs, scripts, spelling and prose
style *CHECKS:
    tests/style {{CHECKS}}

# Build and boot an image of images/: tiny, debian or web
image NAME='debian':
    images/run {{NAME}}

# Write docs/definition.md from the sources
reference:
    cargo run --release -p adamant -- reference > docs/definition.md

# Fuzz an entry point for a minute: archive, command_line, credentials, partition_table, policy, signature, uevent, verity_superblock
fuzz TARGET='policy':
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time=60
