//! Frame bytes → checked headers → [`FlowKey`].
mod drop;
mod headers;
mod key;

pub use drop::{DropReason, Malformed};
pub use headers::{Arp, Fragment, Headers, Ip, KeyFrom, Link, TunnelKind, Vlans};
pub use key::{Addr, FlowKey, Mac, Orientation, Tuple, from_ip_addr, ip_addr};
