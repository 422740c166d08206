//! Writes transactions to a store until it is killed, and prints the number of each one when the
//! store has acknowledged it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lbagent::store::RedbStore;
use lbagent_tests::store_load;

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: FILE")?;
    let store = RedbStore::open(&PathBuf::from(path))?;
    let mut out = std::io::stdout().lock();
    for number in store_load::last(&store)? + 1.. {
        store_load::write(&store, number)?;
        // One system call for a line: it is written whole or not at all.
        out.write_all(format!("{number}\n").as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
