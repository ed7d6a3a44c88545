//! Durations as scenarios write them: `250ms`, `45s`, `2m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Reads a duration with its unit.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Writes a duration with its unit.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// The same for a duration that may be absent.
pub(crate) mod option {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse(&text).map_err(de::Error::custom)).transpose()
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let found = humantime::parse_duration(text).map_err(|_| {
        format!("\"{text}\" is no duration: write a number with its unit, such as 250ms, 45s or 2m")
    })?;
    if found > Duration::from_secs(24 * 3_600) {
        return Err(format!("\"{text}\" is longer than a simulated day"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "5 parsecs", "-1s", "25h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
