//! Numbers of addresses in a status.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of addresses: an IPv6 pool overflows 64 bits.
///
/// Written as a JSON number; a quoted one is accepted too. The API server keeps integers beyond `i64::MAX` as 64-bit
/// floats, therefore a `Count` that large is rounded to the nearest float right away: what is read back then equals what
/// was written, and a status is not patched forever because of lost digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(u128);

/// The largest integer that the API server keeps exactly.
const EXACT: u128 = i64::MAX as u128;

/// 2^128, the float that `u128::MAX` (all of IPv6) is rounded to.
#[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
const LARGEST: f64 = u128::MAX as f64;

impl Count {
    /// No addresses.
    pub const ZERO: Self = Self(0);

    /// The value; exact up to `i64::MAX`, rounded to 53 significant bits beyond.
    pub const fn get(self) -> u128 {
        self.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range and fraction are checked first"
    )]
    fn from_float(value: f64) -> Option<Self> {
        let whole = (0.0..=LARGEST).contains(&value) && value.fract() == 0.0;
        whole.then(|| Self::from(value as u128))
    }
}

impl From<u128> for Count {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rounding is the point; `as` saturates"
    )]
    fn from(value: u128) -> Self {
        if value <= EXACT {
            Self(value)
        } else {
            Self(value as f64 as u128)
        }
    }
}

impl From<u64> for Count {
    fn from(value: u64) -> Self {
        Self::from(u128::from(value))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Count {
    #[expect(
        clippy::cast_precision_loss,
        reason = "beyond i64::MAX the value is a float already"
    )]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(small) => serializer.serialize_u64(small),
            Err(_) => serializer.serialize_f64(self.0 as f64),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number that is not negative, or one in quotes")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count, E> {
                Ok(Count::from(value))
            }

            fn visit_u128<E: de::Error>(self, value: u128) -> Result<Count, E> {
                Ok(Count::from(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Count, E> {
                u64::try_from(value)
                    .map(Count::from)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_i128<E: de::Error>(self, value: i128) -> Result<Count, E> {
                u128::try_from(value)
                    .map(Count::from)
                    .map_err(|_| E::custom(format_args!("{value} is negative")))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Count, E> {
                Count::from_float(value)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Count, E> {
                // Go's big.Int prints an unset one as an empty text.
                if value.is_empty() {
                    return Ok(Count::ZERO);
                }
                let exact = value.parse::<u128>().ok().map(Count::from);
                exact
                    .or_else(|| value.parse().ok().and_then(Count::from_float))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Count, E> {
                Ok(Count::ZERO)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `number`, because the API server turns what overflows 64 bits into a float, which is no `integer`.
        json_schema!({ "type": "number" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Count, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn numbers_and_quoted_numbers_are_read() {
        assert_eq!(read("65530").unwrap(), Count::from(65_530_u64));
        assert_eq!(read("\"65530\"").unwrap(), Count::from(65_530_u64));
        assert_eq!(read("65530.0").unwrap(), Count::from(65_530_u64));
        assert_eq!(read("null").unwrap(), Count::ZERO);
        assert_eq!(read("\"\"").unwrap(), Count::ZERO);
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in ["-1", "1.5", "\"many\"", "\"-3\"", "1e40", "true", "[]"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(
            read("\"many\"").unwrap_err().to_string().contains("many"),
            "the error names the text"
        );
    }

    #[test]
    fn a_count_survives_the_floats_of_the_api_server() {
        for bits in [10_u32, 62, 63, 64, 80, 127] {
            for count in [(1_u128 << bits) - 3, (1 << bits) + 12345] {
                let count = Count::from(count);
                let text = serde_json::to_string(&count).unwrap();
                assert_eq!(read(&text).unwrap(), count, "{text}");
                // Beyond i64 the API server stores a float.
                if count.get() > EXACT {
                    let float: f64 = text.parse().unwrap();
                    assert_eq!(Count::from_float(float), Some(count), "{text}");
                }
                assert_eq!(
                    serde_json::from_value::<Count>(serde_json::to_value(count).unwrap()).unwrap(),
                    count,
                    "through serde_json::Value"
                );
            }
        }
        let all = Count::from(u128::MAX);
        assert_eq!(read(&serde_json::to_string(&all).unwrap()).unwrap(), all);
    }

    #[test]
    fn everyday_counts_are_plain_integers() {
        assert_eq!(
            serde_json::to_string(&Count::from(65_527_u64)).unwrap(),
            "65527"
        );
    }
}
