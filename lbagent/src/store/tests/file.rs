//! The file: private, in use, damaged.

use super::*;

#[test]
fn the_file_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/state.redb");
    let _store = RedbStore::open(&path).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn a_file_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(&directory);
    let error = RedbStore::open(&directory.path().join("state.redb"))
        .err()
        .unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_damaged_file_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = open(&directory);
    let entries = (0..200)
        .map(|i| put(&format!("/key/{i:03}"), &"x".repeat(200)))
        .collect();
    write(&store, vec![], entries).unwrap();
    drop(store);
    let healthy = fs::read(&path).unwrap();

    #[track_caller]
    fn check(path: &std::path::Path, content: &[u8], what: &str) {
        fs::write(path, content).unwrap();
        let error = RedbStore::open(path)
            .err()
            .unwrap_or_else(|| panic!("{what} was not noticed"));
        assert!(
            matches!(error, StoreError::Corrupted { .. }),
            "{what}: {error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains("--import-state BACKUP"), "{text}");
    }
    check(&path, b"not a database at all", "a text");
    check(&path, &vec![0xa5; healthy.len()], "noise");
    check(&path, &healthy[..healthy.len() / 2], "half a file");
    let mut flipped = healthy.clone();
    for position in memchr_all(&healthy, b"xxxxxxxx") {
        flipped[position] = b'y';
    }
    check(&path, &flipped, "changed values");

    fs::write(&path, &healthy).unwrap();
    assert_eq!(
        RedbStore::open(&path)
            .unwrap()
            .range("/key/")
            .unwrap()
            .items
            .len(),
        200
    );
}

/// Every place at which `needle` begins.
fn memchr_all(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..haystack.len())
        .filter(|at| haystack[*at..].starts_with(needle))
        .collect()
}

/// What a damaged file may do: say so, or hold everything that the healthy one held.
#[track_caller]
fn check_damage(path: &std::path::Path, damaged: &[u8], healthy: &Range, what: &str) -> bool {
    fs::write(path, damaged).unwrap();
    match RedbStore::open(path) {
        Err(StoreError::Corrupted { .. }) => true,
        Err(error) => panic!("{what}: {error:?}"),
        Ok(store) => {
            let found = store
                .range("")
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(
                found.revision, healthy.revision,
                "{what}: transactions are lost silently"
            );
            assert!(found == *healthy, "{what}: the content changed silently");
            false
        }
    }
}

#[test]
fn nothing_is_lost_silently() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = open(&directory);
    for number in 0..30 {
        let value = number.to_string().repeat(1 + number * 37 % 500);
        write(
            &store,
            vec![],
            vec![
                put(&format!("/key/{number:03}"), &value),
                put("/count", &value),
            ],
        )
        .unwrap();
    }
    let healthy = store.range("").unwrap();
    // As a kill leaves it, and as a stop leaves it.
    let killed = fs::read(&path).unwrap();
    drop(store);
    let stopped = fs::read(&path).unwrap();
    for (state, bytes) in [("killed", &killed), ("stopped", &stopped)] {
        assert!(!check_damage(&path, bytes, &healthy, state));
        let mut noticed = 0;
        for part in 0..16 {
            let cut = &bytes[..bytes.len() * part / 16];
            let what = format!("{state}, cut to {} bytes", cut.len());
            // An empty file is a new one to redb: only the agent can tell that it was not.
            if !cut.is_empty() {
                noticed += usize::from(check_damage(&path, cut, &healthy, &what));
            }
        }
        // The header byte by byte, then one byte every so often.
        // Byte 9 alone says which of redb's two commit slots is the last, and has no checksum.
        let header = (0..320).filter(|at| *at != 9);
        for at in header.chain((320..bytes.len()).step_by(bytes.len() / 256)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            let what = format!("{state}, byte {at} changed");
            noticed += usize::from(check_damage(&path, &flipped, &healthy, &what));
        }
        assert!(noticed > 50, "{state}: only {noticed} damages were noticed");
    }
}
