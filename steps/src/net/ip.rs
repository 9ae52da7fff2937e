//! Addresses with the length of their network's prefix.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An IP address and a prefix length, such as `10.0.0.1/24` or `fd00::1/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpNet {
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix, in bits.
    pub prefix: u8,
}

impl IpNet {
    /// Reads `ADDRESS/PREFIX`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address with a prefix length, such as 10.0.0.1/24");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most {
            Err(format!("{text:?}: a prefix has at most {most} bits"))
        } else {
            Ok(Self { address, prefix })
        }
    }

    /// The network it is in: the address with all bits after the prefix zero.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { address, ..self }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for IpNet {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for IpNet {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "address/prefix".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_prefixes_are_read_and_written() {
        for text in ["10.0.0.1/24", "0.0.0.0/0", "fd00::1/64", "::/0", "10.1.2.3/32"] {
            assert_eq!(IpNet::parse(text).map(|n| n.to_string()), Ok(text.to_owned()));
        }
        for bad in ["10.0.0.1", "10.0.0.1/33", "10.0.0/8", "fd00::/129", "a/8", "10.0.0.1/-1", ""] {
            assert!(IpNet::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_network_has_no_bits_after_its_prefix() {
        let network = |text: &str| IpNet::parse(text).map(|n| n.network().to_string());
        assert_eq!(network("10.1.2.3/24"), Ok("10.1.2.0/24".into()));
        assert_eq!(network("10.1.2.3/0"), Ok("0.0.0.0/0".into()));
        assert_eq!(network("10.1.2.3/32"), Ok("10.1.2.3/32".into()));
        assert_eq!(network("fd00::ff/120"), Ok("fd00::/120".into()));
        assert_eq!(network("fd00::ff/0"), Ok("::/0".into()));
    }
}
