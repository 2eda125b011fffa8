//! Strings of the file that have a form: names, durations, sizes, ranges. Each carries its pattern into the
//! schema, so what passes the schema can be read here without surprises.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::mirror::hops::Probe;

/// A string type with what it is called in messages, its pattern, and examples.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $called:literal, $pattern:literal, $examples:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
        pub(super) struct $name(pub(super) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": $called, "pattern": $pattern, "examples": $examples })
            }
        }
    };
}

text_type!(
    /// Of ports, VMs, groups and mirrors; safe in file names.
    Name,
    "a name of at most 64 letters, digits, `_`, `-` and `.`, starting with a letter or digit,",
    r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$",
    ["web-1"]
);
text_type!(
    /// Of rules; a little freer than [`Name`].
    RuleId,
    "an id of at most 128 letters, digits and `_-.:/@+`, starting with a letter or digit,",
    r"^[A-Za-z0-9][A-Za-z0-9_.:/@+\-]{0,127}$",
    ["web-to-app"]
);
text_type!(
    /// A tag of a VM.
    Tag,
    "a tag without spaces",
    r"^[^\s\p{Cc}]{1,128}$",
    ["role=web"]
);
text_type!(
    /// A span of time.
    DurationText,
    "a duration in ms, s, m, h or d",
    r"^[0-9]{1,12}(ms|s|m|h|d)$",
    ["30s", "5m"]
);
text_type!(
    /// An amount of memory.
    SizeText,
    "a size in MiB or GiB",
    r"^[0-9]{1,9}(MiB|GiB)$",
    ["512MiB", "2GiB"]
);
text_type!(
    /// First and last port.
    PortRange,
    "a range of ports",
    r"^[0-9]{1,5} ?- ?[0-9]{1,5}$",
    ["8000-8100"]
);
text_type!(
    /// An IP address and a port.
    ListenText,
    "an address and a port",
    r"^([0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$",
    ["127.0.0.1:9464", "[::1]:9464"]
);
text_type!(
    /// One in n.
    SampleText,
    "a rate one in n",
    r"^1/[1-9][0-9]{0,8}$",
    ["1/100"]
);
text_type!(
    /// A percentage.
    ShareText,
    "a percentage",
    r"^[0-9]{1,3}(\.[0-9]{1,6})?%$",
    ["10%", "0.5%"]
);
text_type!(
    /// Bits per second.
    RateText,
    "a rate in kbit/s, Mbit/s or Gbit/s",
    r"^[1-9][0-9]{0,8}(kbit/s|Mbit/s|Gbit/s)$",
    ["100Mbit/s", "1Gbit/s"]
);
text_type!(
    /// Six bytes in hexadecimal digits.
    MacText,
    "a MAC address",
    r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$",
    ["52:54:00:12:34:56"]
);
text_type!(
    /// Headers of a frame, and what follows them.
    SliceText,
    "\"headers\" or \"headers+N\"",
    r"^headers(\+[0-9]{1,5})?$",
    ["headers", "headers+64"]
);
text_type!(
    /// How a collector is asked whether it is well.
    HealthText,
    "\"arp\", \"icmp\" or \"tcp:PORT\"",
    r"^(arp|icmp|tcp:[1-9][0-9]{0,4})$",
    ["arp", "icmp", "tcp:4789"]
);
text_type!(
    /// Domain, bus, device and function.
    PciAddress,
    "a PCI address",
    r"^([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$",
    ["0000:03:00.0"]
);
text_type!(
    /// What DPDK probes: a PCI address, or a virtual device with its arguments.
    DeviceText,
    "a PCI address, or a DPDK virtual device with its arguments,",
    r"^(([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]|(net|eth)_[a-z0-9_]+)(,[!-~]+)?$",
    ["0000:03:00.0", "net_af_packet0,iface=eth1"]
);

text_type!(
    /// Where an IPFIX collector listens.
    CollectorText,
    "a host name or address and a port",
    r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._\-]{0,252})):[0-9]{1,5}$",
    ["10.0.0.5:4739", "[2001:db8::5]:4739", "flows.example.net:4739"]
);

impl CollectorText {
    /// `None` when the port is none, or an address in brackets is no IPv6 address.
    pub(super) fn checked(&self) -> Option<&str> {
        let (host, port) = self.0.rsplit_once(':')?;
        let bracketed = host.strip_prefix('[').map(|host| host.trim_end_matches(']'));
        let sound = bracketed.is_none_or(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        (sound && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(&self.0)
    }
}

impl DurationText {
    /// In the largest unit that is exact.
    pub(super) fn of(duration: Duration) -> Self {
        let ms = duration.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        let (size, unit) = units.into_iter().find(|(size, _)| ms.is_multiple_of(*size)).unwrap_or((1, "ms"));
        Self(format!("{}{unit}", ms / size))
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let digits = self.0.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &self.0[digits.len()..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(Duration::from_millis(digits.parse::<u64>().ok()?.checked_mul(factor)?))
    }
}

impl SliceText {
    /// Bytes behind the headers.
    pub(super) fn more(&self) -> u32 {
        self.0.strip_prefix("headers+").and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

impl HealthText {
    /// `None` when the port is none.
    pub(super) fn probe(&self) -> Option<Probe> {
        match self.0.strip_prefix("tcp:") {
            Some(port) => port.parse().ok().map(Probe::Tcp),
            None if self.0 == "arp" => Some(Probe::Neighbour),
            None => Some(Probe::Echo),
        }
    }
}

impl SizeText {
    /// In MiB.
    pub(super) fn mebibytes(&self) -> Option<u32> {
        match self.0.strip_suffix("MiB") {
            Some(digits) => digits.parse().ok(),
            None => self.0.strip_suffix("GiB")?.parse::<u32>().ok()?.checked_mul(1024),
        }
    }
}

impl PortRange {
    /// `None` when a port is larger than 65535 or the last is before the first.
    pub(super) fn range(&self) -> Option<RangeInclusive<u16>> {
        let (first, last) = self.0.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some(first..=last)
    }
}

impl SampleText {
    pub(super) fn one_in(&self) -> Option<u32> {
        self.0.strip_prefix("1/")?.parse().ok().filter(|n| *n > 0)
    }
}

impl ShareText {
    pub(super) fn of(share: f64) -> Self {
        Self(format!("{}%", share * 100.0))
    }

    /// 0.0 (exclusive) to 1.0.
    pub(super) fn share(&self) -> Option<f64> {
        let percent: f64 = self.0.strip_suffix('%')?.parse().ok()?;
        (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0)
    }
}

impl RateText {
    pub(super) fn bits_per_second(&self) -> u64 {
        let digits = self.0.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match &self.0[digits.len()..] {
            "kbit/s" => 1_000,
            "Mbit/s" => 1_000_000,
            _ => 1_000_000_000,
        };
        digits.parse::<u64>().unwrap_or(0).saturating_mul(factor)
    }
}

impl PciAddress {
    /// With domain and in lower case, so that two spellings compare equal.
    pub(super) fn canonical(text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        if lower.matches(':').count() == 1 { format!("0000:{lower}") } else { lower }
    }
}

impl DeviceText {
    /// The PCI address or the virtual device's name, without arguments.
    pub(super) fn device_name(&self) -> &str {
        self.0.split(',').next().unwrap_or_default()
    }

    /// A PCI address as DPDK names it, arguments kept.
    pub(super) fn canonical(&self) -> String {
        let name = self.device_name();
        if self.is_pci() { PciAddress::canonical(name) + &self.0[name.len()..] } else { self.0.clone() }
    }

    pub(super) fn is_pci(&self) -> bool {
        self.0.contains(':') && !self.0.starts_with("net_") && !self.0.starts_with("eth_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_go_both_ways() {
        for text in ["1ms", "30s", "5m", "1h", "2d", "1500ms"] {
            let duration = DurationText(text.to_owned()).duration().expect(text);
            assert_eq!(DurationText::of(duration).0, text);
        }
        for text in ["", "s", "5", "5x", "99999999999999999999s", "999999999999d"] {
            assert_eq!(DurationText(text.to_owned()).duration(), None, "{text}");
        }
    }

    #[test]
    fn sizes_ranges_rates_and_shares() {
        assert_eq!(SizeText("2GiB".to_owned()).mebibytes(), Some(2048));
        assert_eq!(SizeText("999999999GiB".to_owned()).mebibytes(), None);
        assert_eq!(PortRange("80-90".to_owned()).range(), Some(80..=90));
        assert_eq!(PortRange("90-80".to_owned()).range(), None);
        assert_eq!(PortRange("80-65536".to_owned()).range(), None);
        assert_eq!(SampleText("1/100".to_owned()).one_in(), Some(100));
        assert_eq!(RateText("25Gbit/s".to_owned()).bits_per_second(), 25_000_000_000);
        assert_eq!(ShareText("12.5%".to_owned()).share(), Some(0.125));
        assert_eq!(ShareText("0%".to_owned()).share(), None);
        assert_eq!(ShareText("100.1%".to_owned()).share(), None);
    }

    #[test]
    fn collectors_have_a_host_and_a_port() {
        let checked = |text: &str| CollectorText(text.to_owned()).checked().is_some();
        assert!(checked("10.0.0.5:4739") && checked("flows.example.net:1") && checked("[2001:db8::5]:65535"));
        assert!(!checked("host:0") && !checked("host:65536") && !checked("[2001:db8]:4739"));
    }

    #[test]
    fn pci_spellings_meet() {
        assert_eq!(PciAddress::canonical("03:00.0"), PciAddress::canonical("0000:03:00.0"));
        assert!(DeviceText("03:00.0".to_owned()).is_pci());
        assert_eq!(DeviceText("0A:00.0,Key=1".to_owned()).canonical(), "0000:0a:00.0,Key=1");
        assert_eq!(DeviceText("net_null0,size=64".to_owned()).canonical(), "net_null0,size=64");
        assert!(!DeviceText("net_pcap0,rx_pcap=a:b".to_owned()).is_pci());
    }
}
