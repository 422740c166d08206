//! A write load on a store whose whole content follows from the number of its last transaction, so
//! that whoever finds the file after a crash can tell what must be in it.

use std::collections::BTreeMap;

use lbagent::store::{Compare, Op, Store, Transaction, TxnError};

/// Key with the number of the last transaction.
pub const COUNT: &str = "/count";
/// Transactions whose log entries are kept.
const KEPT: u64 = 40;
/// Keys that are written again and again.
const SLOTS: u64 = 7;

/// The number of the last transaction that the store holds.
pub fn last(store: &dyn Store) -> anyhow::Result<u64> {
    let range = store.range(COUNT)?;
    let Some(item) = range.items.first() else {
        return Ok(0);
    };
    Ok(std::str::from_utf8(&item.value)?.parse()?)
}

/// Writes transaction `number` on a store that holds all those before it, and no other.
pub fn write(store: &dyn Store, number: u64) -> Result<u64, TxnError> {
    let put = |(key, value)| Op::Put { key, value };
    let mut ops: Vec<Op> = written(number).into_iter().map(put).collect();
    if let Some(old) = number.checked_sub(KEPT).filter(|old| *old > 0) {
        ops.push(Op::Delete { key: log(old) });
    }
    let before = Compare {
        key: COUNT.into(),
        mod_revision: number - 1,
    };
    store.txn(&Transaction {
        compares: vec![before],
        ops,
        ..Transaction::default()
    })
}

/// Everything that a store holds after transaction `number`.
pub fn content(number: u64) -> BTreeMap<String, Vec<u8>> {
    let first = (number + 1).saturating_sub(KEPT.max(SLOTS)).max(1);
    (first..=number).flat_map(written).collect()
}

/// What one transaction writes: several keys, and now and then some that take many pages.
fn written(number: u64) -> [(String, Vec<u8>); 3] {
    let size = if number.is_multiple_of(5) { 20_000 } else { 30 };
    let value = number.to_string().into_bytes();
    [
        (COUNT.into(), value.clone()),
        (format!("/slot/{}", number % SLOTS), value.clone()),
        (log(number), value.repeat(size / value.len())),
    ]
}

fn log(number: u64) -> String {
    format!("/log/{number}")
}
