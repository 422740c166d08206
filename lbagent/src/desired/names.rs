//! Names that are made up: two words that are easy to say, and enough chance to be unique.

use uuid::Uuid;

const FIRST: [&str; 32] = [
    "amber", "ample", "bold", "brave", "brisk", "calm", "clear", "crisp", "deft", "eager", "early",
    "fair", "firm", "fleet", "fresh", "glad", "keen", "kind", "light", "lively", "lucid", "mild",
    "neat", "noble", "plain", "prime", "quick", "quiet", "rapid", "sound", "steady", "swift",
];
const SECOND: [&str; 32] = [
    "anchor", "arch", "badger", "beacon", "birch", "brook", "canal", "cedar", "comet", "delta",
    "falcon", "ferry", "finch", "grove", "harbor", "heron", "inlet", "lark", "maple", "meadow",
    "otter", "pier", "pine", "plover", "quarry", "reef", "river", "spruce", "swallow", "tern",
    "valley", "willow",
];

/// `<word>-<word>-<8 letters or digits>`.
pub(super) fn random_name() -> String {
    let chance = Uuid::new_v4();
    let [a, b, ..] = *chance.as_bytes();
    let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte % 32)];
    format!(
        "{}-{}-{}",
        word(&FIRST, a),
        word(&SECOND, b),
        random_suffix()
    )
}

/// Eight lower-case letters or digits.
pub(super) fn random_suffix() -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut chance = Uuid::new_v4().as_u128();
    // The fixed bits of a version 4 UUID are in its middle: use the others.
    chance ^= chance >> 80;
    let mut letter = || {
        let letter = ALPHABET[usize::try_from(chance % 36).unwrap_or(0)];
        chance /= 36;
        char::from(letter)
    };
    std::array::from_fn::<char, 8, _>(|_| letter())
        .iter()
        .collect()
}

/// `<common name>-<5 letters or digits>`: as much of the name as fits, without a wildcard's `*`.
pub(super) fn certificate_name(common_name: &str) -> String {
    let plain = common_name.trim_start_matches("*.");
    let head: String = plain.chars().take(57).collect();
    let suffix = &random_suffix()[..5];
    format!("{}-{suffix}", head.trim_end_matches(['-', '.']))
}

/// A domain label for a group of this name: as much of it as fits, and a suffix.
pub(super) fn domain_label(name: &str) -> String {
    // A label has 63 letters at most, nine of which are the suffix and its hyphen.
    let head: String = name.chars().take(54).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), random_suffix())
}
