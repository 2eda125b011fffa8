//! The fast path: frame bytes → [`Headers`], nothing allocated.

use super::drop::Malformed;
use super::headers::{Arp, Headers, Ip, Link, TunnelKind};
use super::key::Mac;
use super::tunnel::G_PDU;
use super::walk::{Transport, Tunnel, Visit, walk};

/// Reads the headers of an Ethernet frame into `headers`, which is cleared first.
///
/// `frame` are the captured bytes, `wire_len` the length of the frame on the wire (less than
/// `frame.len()` counts as equal); only the first 65535 bytes are looked at.
///
/// - `link` is the outermost link layer. VLAN tags and MACs inside tunnels and pseudowires are not in it.
/// - `outer` is the first IP header, `inner` the last one, up to [`super::MAX_NESTING`] tunnels deep.
/// - `tunnel` and `tunnel_id` are those of the outermost tunnel that carries an id (VNI, TEID, GRE key,
///   ERSPAN session); when none does, `tunnel` is the outermost tunnel and `tunnel_id` 0. A tunnel may be
///   named with no `inner`, when it carries something other than IP or something broken.
///
/// # Errors
/// The first fault of the frame. [`Malformed::Snapped`] when the capture ends inside a header that was
/// whole on the wire. `headers` holds whatever was understood until then: addresses when only the
/// transport header is broken, ports when only its lengths are. A fault inside a tunnel is no fault of
/// the frame, except for [`Malformed::TunnelDepth`].
pub fn parse(frame: &[u8], wire_len: u32, headers: &mut Headers) -> Result<(), Malformed> {
    headers.clone_from(&Headers::EMPTY);
    let mut sink = Fast::new(headers);
    walk(frame, wire_len, &mut sink)
}

/// How far the walk is, which decides where a field goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first IP header, in the outermost link layer.
    Link,
    /// In an Ethernet frame inside MPLS, whose addresses and tags are not those of this network.
    Pseudowire,
    Outer,
    Inner,
}

pub(super) struct Fast<'a> {
    pub(super) headers: &'a mut Headers,
    place: Place,
    /// The tunnel noted so far carries an id.
    has_id: bool,
}

impl<'a> Fast<'a> {
    #[inline]
    pub(super) fn new(headers: &'a mut Headers) -> Self {
        Self { headers, place: Place::Link, has_id: false }
    }

    /// The next IP header is the first one, and the link layer is known.
    pub(super) fn restart(&mut self) {
        self.place = Place::Pseudowire;
        self.has_id = false;
    }

    #[inline]
    fn link(&mut self) -> Option<&mut Link> {
        (self.place == Place::Link).then_some(&mut self.headers.link)
    }

    #[inline]
    fn ip(&mut self) -> &mut Ip {
        if self.place == Place::Inner { &mut self.headers.inner } else { &mut self.headers.outer }
    }
}

impl Visit for Fast<'_> {
    const QUOTED: bool = false;

    #[inline]
    fn ethernet(&mut self, src: Mac, dst: Mac, _ethertype: u16) {
        if let Some(link) = self.link() {
            (link.src, link.dst) = (src, dst);
        }
    }

    #[inline]
    fn ethertype(&mut self, ethertype: u16) {
        if let Some(link) = self.link() {
            link.ethertype = ethertype;
        }
    }

    fn vlan(&mut self, _tpid: u16, id: u16) {
        let Some(link) = self.link() else { return };
        if let Some(slot) = link.vlans.ids.get_mut(usize::from(link.vlans.depth)) {
            *slot = id;
            link.vlans.depth += 1;
        }
    }

    fn mpls(&mut self, label: u32) {
        let Some(link) = self.link() else { return };
        if link.mpls_depth == 0 {
            link.mpls_label = label;
        }
        link.mpls_depth = link.mpls_depth.saturating_add(1);
    }

    fn pseudowire(&mut self) {
        if self.place == Place::Link {
            self.place = Place::Pseudowire;
        }
    }

    fn arp(&mut self, arp: &Arp) {
        if self.place == Place::Link {
            self.headers.arp = Some(*arp);
        }
    }

    #[inline(always)]
    fn network(&mut self, ip: &Ip) {
        if matches!(self.place, Place::Link | Place::Pseudowire) {
            self.place = Place::Outer;
            self.headers.outer = *ip;
        } else {
            self.place = Place::Inner;
            self.headers.inner = *ip;
        }
    }

    #[inline]
    fn transport(&mut self, transport: Transport) {
        let ip = self.ip();
        match transport {
            Transport::Tcp { src, dst, flags, seq, ack, window } => {
                (ip.src_port, ip.dst_port) = (src, dst);
                (ip.tcp_flags, ip.tcp_seq, ip.tcp_ack, ip.tcp_window) = (flags, seq, ack, window);
            }
            Transport::Udp { src, dst, .. } | Transport::Sctp { src, dst } => (ip.src_port, ip.dst_port) = (src, dst),
            Transport::Ports { src, dst, seq } => {
                (ip.src_port, ip.dst_port, ip.tcp_seq) = (src, dst, seq.unwrap_or(0));
            }
            Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id } => {
                (ip.icmp_type, ip.icmp_code, ip.icmp_id) = (kind, code, id.unwrap_or(0));
            }
        }
    }

    #[inline]
    fn tcp_options(&mut self, scale: Option<u8>, sack: bool) {
        let ip = self.ip();
        (ip.tcp_scale, ip.tcp_sack) = (scale, sack);
    }

    #[inline]
    fn payload(&mut self, offset: u16, len: u32) {
        let ip = self.ip();
        (ip.payload_offset, ip.payload_len) = (offset, len);
    }

    fn tunnel(&mut self, tunnel: Tunnel) {
        let is_other = match tunnel {
            // Signalling carries no packet.
            Tunnel::GtpU { message, .. } => message != G_PDU,
            // The ERSPAN header that follows names the tunnel.
            Tunnel::Gre { protocol, .. } => matches!(protocol, 0x88be | 0x22eb),
            _ => false,
        };
        let is_first = self.headers.tunnel == TunnelKind::None;
        if is_other || self.has_id || !(is_first || tunnel.id().is_some()) {
            return;
        }
        self.headers.tunnel = tunnel.kind();
        self.headers.tunnel_id = tunnel.id().unwrap_or(0);
        self.has_id = tunnel.id().is_some();
    }
}
