use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::text::serde_as_text;

/// An Ethernet address (EUI-48). Prints in lower case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac([u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address with these bytes, in the order in which they are sent.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six bytes, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered unicast address (IEEE 802, first byte `..10`) that depends on `seed` alone.
    ///
    /// The same seed gives the same address in every release, so that addresses need not be stored to come back.
    /// 46 bits vary: among 10 000 ports of one subnet, the chance that any two meet is below 10⁻⁶. Who needs
    /// uniqueness checks for it and tries another seed.
    pub fn local_from(seed: &[u8]) -> Self {
        let hash = mix(fnv1a(seed));
        let [_, _, mut octets @ ..] = hash.to_be_bytes();
        octets[0] = (octets[0] & 0b1111_1100) | 0b10;
        Self(octets)
    }

    /// Locally administered, that is, not from a vendor's range.
    pub const fn is_local(self) -> bool {
        self.0[0] & 0b10 != 0
    }

    /// Can be the address of a port: neither multicast (broadcast) nor all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

/// 64-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of MurmurHash3: spreads every bit of the input over all bits of the output. FNV alone leaves the
/// high bits of short, similar seeds (`web-0`, `web-1`) nearly equal.
const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

/// Accepts what Go's `net.ParseMAC` accepts for six bytes: `0a:58:0a:10:00:05`, `0a-58-0a-10-00-05` and
/// `0a58.0a10.0005`, in either case.
impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text.as_bytes())
            .map(Self)
            .ok_or_else(|| ParseError::Mac {
                text: text.to_owned(),
            })
    }
}

fn parse(text: &[u8]) -> Option<[u8; 6]> {
    let (separator, digits) = match (text.len(), text.get(2)?, text.get(4)?) {
        (17, &separator @ (b':' | b'-'), _) => (separator, 2),
        (14, _, b'.') => (b'.', 4),
        _ => return None,
    };
    let mut octets = [0; 6];
    let mut nibbles = 0;
    for (i, &byte) in text.iter().enumerate() {
        if i % (digits + 1) == digits {
            if byte != separator {
                return None;
            }
            continue;
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        octets[nibbles / 2] = octets[nibbles / 2] << 4 | value;
        nibbles += 1;
    }
    Some(octets)
}

serde_as_text!(Mac, "a MAC address such as 0a:58:0a:10:00:05");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn text_forms() {
        let mac = Mac::new([0x0a, 0x58, 0x0a, 0x10, 0x00, 0xff]);
        for text in ["0a:58:0a:10:00:ff", "0A-58-0A-10-00-FF", "0a58.0a10.00ff"] {
            assert_eq!(text.parse::<Mac>().unwrap(), mac, "{text}");
        }
        assert_eq!(mac.to_string(), "0a:58:0a:10:00:ff");
        assert_eq!(
            serde_json::to_string(&mac).unwrap(),
            "\"0a:58:0a:10:00:ff\""
        );
        assert_eq!(
            serde_json::from_str::<Mac>("\"0a:58:0a:10:00:ff\"").unwrap(),
            mac
        );
    }

    #[test]
    fn refuses_and_quotes() {
        for bad in [
            "",
            "0a:58:0a:10:00",
            "0a:58:0a:10:00:0",
            "0a:58:0a:10:00:0g",
            "0a:58:0a-10:00:0f",
            "0a:58:0a:10:00:0f:01:02",
            "0a580a1000ff",
            "0a58.0a10:00ff",
            " 0a:58:0a:10:00:ff",
            "0ä:58:0a:10:00:f",
        ] {
            let error = bad.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn local_addresses_are_stable_and_spread() {
        // Fixed for ever: ports keep their addresses over releases.
        for (seed, printed) in [
            ("", "1e:60:ba:99:29:26"),
            ("web-0.default", "16:4c:e5:83:96:15"),
            ("web-1.default", "ae:a1:a4:7e:62:b4"),
        ] {
            assert_eq!(Mac::local_from(seed.as_bytes()).to_string(), printed);
        }
        let all: BTreeSet<Mac> = (0..20_000)
            .map(|i| Mac::local_from(format!("web-{i}.default").as_bytes()))
            .collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|mac| mac.is_local() && mac.is_unicast()));
        let first_bytes: BTreeSet<u8> = all.iter().map(|mac| mac.octets()[0]).collect();
        assert_eq!(
            first_bytes.len(),
            64,
            "all six free bits of the first byte vary"
        );
    }

    #[test]
    fn kinds() {
        assert!(!Mac::BROADCAST.is_unicast());
        assert!(!Mac::default().is_unicast());
        assert!(!"01:00:5e:00:00:01".parse::<Mac>().unwrap().is_unicast());
        assert!(!"00:16:3e:00:00:01".parse::<Mac>().unwrap().is_local());
    }
}
