//! All foreign functions and all ownership of packet buffers.
//!
//! In: typed options. Out: [`Port`]s with [`RxQueue`]s and [`TxQueue`]s, [`Mbuf`]s, [`PacketRing`]s,
//! [`Lcore`]s. Runs on whichever core owns the queue. Nothing here waits or decides: a full queue leaves
//! the packets with the caller.
//!
//! Ownership in one picture:
//! ```text
//! Eal ◄─Arc── Mempool ◄─Arc── Port ◄─Arc── RxQueue, TxQueue (one owner each)
//!                                           Mbuf: move-only, freed on drop
//! ```

mod acl;
mod clock;
mod eal;
mod error;
mod ffi;
mod hash;
mod interface;
mod lcore;
mod mbuf;
mod mempool;
mod port;
mod ring;
mod stock;
mod rss;

pub use acl::{Acl, AclAlgorithm, AclPacket, AclRule, FiveTuple, FiveTuple6};
pub use clock::{Clock, cpu_time_ns, hz, pause, ticks};
pub use eal::{Eal, EalOptions, version};
pub use error::DpdkError;
pub use hash::{HashTable, Values};
pub use lcore::{Lcore, RunningLcore};
pub use mbuf::{BURST, Burst, Mbuf, Outbox};
pub use mempool::{FRONT_BYTES, Mempool, SEGMENT_BYTES};
pub use port::{Device, LinkState, Port, PortLimits, PortOptions, PortStats, RxQueue, TxQueue};
pub use ring::PacketRing;
pub use rss::{Scheme, Spread, toeplitz};
pub use stock::Stock;
