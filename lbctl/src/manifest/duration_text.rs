//! Milliseconds that files have as `500ms`, `30s`, `5m` or `1h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::from_text;

use crate::cmd::{duration, parse_duration};

/// For serde.
#[expect(clippy::ref_option, reason = "serde passes a reference")]
pub fn serialize<S: Serializer>(time: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| duration(Duration::from_millis(time)))
        .serialize(serializer)
}

struct Milliseconds(u64);

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, milliseconds).map(Self)
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let time = parse_duration(text)?;
    u64::try_from(time.as_millis()).map_err(|error| error.to_string())
}

/// For serde.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let time = Option::<Milliseconds>::deserialize(deserializer)?;
    Ok(time.map(|Milliseconds(time)| time).filter(|time| *time > 0))
}
