//! `writable`: writes the tables of docs/writable.md from tests/writable/groups.toml and
//! tests/writable/found.
//!
//! Exit code 1: a file is missing or malformed.

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use adamant_tests::writable::document;

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writable: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), Box<dyn Error>> {
    let page = adamant_tests::writable::document();
    fs::write(&page, document::current()?)?;
    Ok(())
}
