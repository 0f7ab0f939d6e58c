//! Numbers of addresses in a status.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of addresses: an IPv6 pool overflows 64 bits.
///
/// Written as a JSON number; a quoted one is accepted too. The API server keeps integers beyond `i64::MAX` as 64-bit
/// floats, and parsers of JSON differ in a float's last bits. Therefore a `Count` that large is rounded to 48 significant
/// bits right away: what is read back then equals what was written, and a status is not patched forever because of
/// digits that nobody keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(u128);

/// The largest integer that the API server keeps exactly.
const EXACT: u128 = i64::MAX as u128;
/// Significant bits of larger ones; a float has 53.
const BITS: u32 = 48;

impl Count {
    /// No addresses.
    pub const ZERO: Self = Self(0);

    /// The value; exact up to `i64::MAX`, rounded beyond.
    pub const fn get(self) -> u128 {
        self.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "negative values are refused, and what exceeds u128 saturates: there are not that many addresses"
    )]
    fn from_float(value: f64) -> Option<Self> {
        let whole = value.is_finite() && value >= 0.0 && value.fract() == 0.0;
        whole.then(|| Self::from(value as u128))
    }
}

impl From<u128> for Count {
    fn from(value: u128) -> Self {
        if value <= EXACT {
            return Self(value);
        }
        let dropped = u128::BITS - value.leading_zeros() - BITS;
        let half = 1 << (dropped - 1);
        Self(
            value
                .checked_add(half)
                .map_or(u128::MAX, |sum| sum >> dropped << dropped),
        )
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
    use proptest::prelude::*;

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
        for text in ["-1", "1.5", "\"many\"", "\"-3\"", "true", "[]"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(
            read("\"many\"").unwrap_err().to_string().contains("many"),
            "the error names the text"
        );
    }

    proptest! {
        #[test]
        fn a_count_survives_the_floats_of_the_api_server(value: u128, bits in 0..128_u32) {
            let count = Count::from(value >> bits);
            let text = serde_json::to_string(&count).unwrap();
            prop_assert_eq!(read(&text).unwrap(), count, "as written");
            let value = serde_json::to_value(count).unwrap();
            prop_assert_eq!(serde_json::from_value::<Count>(value).unwrap(), count, "as a value");
            if count.get() > EXACT {
                // The API server holds a float and prints its shortest text, below 10^21 without an exponent.
                let float: f64 = text.parse().unwrap();
                prop_assert_eq!(read(&format!("{float:e}")).unwrap(), count, "with an exponent");
                prop_assert_eq!(read(&format!("{float}")).unwrap(), count, "without one");
            }
        }
    }

    #[test]
    fn all_of_ipv6_has_a_count() {
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
