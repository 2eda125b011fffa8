//! Frame bytes → checked headers → [`FlowKey`].
mod drop;
mod headers;
mod key;
mod spread;

pub use drop::{DropReason, Malformed};
pub use headers::{Arp, Fragment, Headers, Ip, KeyFrom, Link, TunnelKind, Vlans};
pub use spread::spread;
pub use key::{Addr, FlowKey, Mac, Orientation, Tuple, from_ip_addr, ip_addr};
