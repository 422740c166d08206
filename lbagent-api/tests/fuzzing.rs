//! The fuzz targets of the contract, for a moment.

#[path = "../../tests/fuzz/src/api.rs"]
mod api;
#[path = "../../tests/fuzz/src/drive.rs"]
mod drive;

#[test]
fn inputs_like_the_seeds_hold() {
    api::TARGETS
        .iter()
        .for_each(|(name, target)| drive::drive(name, *target));
}
