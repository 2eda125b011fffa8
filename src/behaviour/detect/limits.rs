//! Thresholds and exceptions, and who is inside.

use ipnet::IpNet;

use crate::behaviour::alert::AlertKind;
use crate::config::{Detect, DetectSide};

use super::nanoseconds;
use crate::packet::Host;

/// The settings, as detectors ask for them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) detect: Detect,
    /// Nanoseconds.
    pub(crate) window: u64,
    pub(crate) slow_window: u64,
}

impl Limits {
    pub(crate) fn new(detect: &Detect) -> Self {
        Self {
            window: nanoseconds(detect.window),
            slow_window: nanoseconds(detect.slow_window),
            detect: detect.clone(),
        }
    }

    /// The threshold of a kind for what `from` does to `to`; `None` when that is not to be told.
    pub(crate) fn of(&self, kind: AlertKind, from: &Host, to: &Host) -> Option<f64> {
        self.or(kind, from, to, self.usual(kind))
    }

    /// As [`Limits::of`], with another default.
    pub(crate) fn or(&self, kind: AlertKind, from: &Host, to: &Host, usual: f64) -> Option<f64> {
        let applies = |side: &Option<DetectSide>, host: &Host| side.as_ref().is_none_or(|side| contains(side, host));
        let first =
            self.detect.exceptions.iter().find(|e| {
                (e.kinds.is_empty() || e.kinds.contains(&kind)) && applies(&e.from, from) && applies(&e.to, to)
            });
        match first {
            None => Some(usual),
            Some(exception) => exception.threshold.map(|threshold| (threshold as f64).max(1.0)),
        }
    }

    fn usual(&self, kind: AlertKind) -> f64 {
        let d = &self.detect;
        let threshold = match kind {
            AlertKind::PortScan => d.port_scan.into(),
            AlertKind::HostSweep => d.host_sweep.into(),
            AlertKind::SynFlood => d.syn_flood.into(),
            AlertKind::UdpFlood => d.udp_flood,
            AlertKind::IcmpFlood => d.icmp_flood,
            AlertKind::Amplification => d.amplification,
            AlertKind::BruteForce => d.brute_force.into(),
            AlertKind::Exfiltration => d.exfiltration,
            AlertKind::DnsTunnel => d.dns_tunnel.into(),
            AlertKind::IcmpTunnel => d.icmp_tunnel,
            AlertKind::Beacon => d.beacon.into(),
            AlertKind::ArpSpoof => d.arp_spoof.into(),
            AlertKind::SlowHttp => d.slow_http.into(),
            AlertKind::NewRelationship => d.new_relationship.into(),
            AlertKind::Volume => d.volume,
            AlertKind::Outlier => 1,
        };
        (threshold as f64).max(1.0)
    }

    /// Whether a host is one of the network's own.
    pub(crate) fn is_inside(&self, host: &Host) -> bool {
        let ip = host.ip();
        self.detect.inside.iter().any(|net: &IpNet| net.contains(&ip))
    }
}

fn contains(side: &DetectSide, host: &Host) -> bool {
    let ip = host.ip();
    side.nets.iter().any(|net| net.contains(&ip))
        || host.vlan != 0 && side.vlans.contains(&host.vlan)
        || host.vni != 0 && side.vnis.contains(&host.vni)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::DetectException;
    use crate::packet::from_ip_addr;

    fn host(text: &str) -> Host {
        let (version, addr) = from_ip_addr(text.parse().unwrap());
        Host { version, addr, vlan: 7, vni: 0 }
    }

    #[test]
    fn the_first_exception_that_fits_decides() {
        let side = |net: &str| Some(DetectSide { nets: vec![net.parse().unwrap()], ..DetectSide::default() });
        let exceptions = vec![
            DetectException { kinds: vec![AlertKind::PortScan], from: side("10.0.0.9/32"), to: None, threshold: None },
            DetectException { kinds: vec![], from: None, to: side("10.0.1.0/24"), threshold: Some(7) },
            DetectException {
                kinds: vec![AlertKind::Volume],
                from: Some(DetectSide { vlans: vec![7], ..DetectSide::default() }),
                to: None,
                threshold: Some(9),
            },
        ];
        let limits = Limits::new(&Detect { exceptions, ..Detect::default() });
        let (scanner, web, other) = (host("10.0.0.9"), host("10.0.1.1"), host("10.0.2.1"));
        assert_eq!(limits.of(AlertKind::PortScan, &scanner, &web), None);
        assert_eq!(limits.of(AlertKind::HostSweep, &scanner, &web), Some(7.0));
        assert_eq!(limits.of(AlertKind::PortScan, &other, &scanner), Some(20.0));
        assert_eq!(limits.of(AlertKind::Volume, &other, &scanner), Some(9.0));
    }

    #[test]
    fn private_addresses_are_inside() {
        let limits = Limits::new(&Detect::default());
        let inside =
            ["10.1.2.3", "172.31.0.1", "192.168.9.9", "169.254.1.1", "100.64.0.1", "fd00::1", "fe80::1", "127.0.0.1"];
        assert!(inside.iter().all(|ip| limits.is_inside(&host(ip))));
        assert!(!["8.8.8.8", "172.32.0.1", "2001:db8::1"].iter().any(|ip| limits.is_inside(&host(ip))));
    }
}
