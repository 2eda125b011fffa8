//! Capture files in and out, for replay and for scenarios.
//!
//! In: pcap (micro- and nanosecond, both byte orders, the "modified" variant) and pcapng, plain or
//! gzip, of many link types. Out: Ethernet frames, each with time and length on the wire, pcap
//! files that the pcap device reads back, and pcapng with comments. Runs on the main core before and after the workers run, never
//! beside a packet. Nothing is dropped here: what cannot be understood is handed on marked as
//! unsupported, and a file that is cut off is reported as truncated after all whole frames were given.

mod error;
mod link;
mod pcapng;
mod pcapng_writer;
mod preamble;
mod reader;
mod source;
mod split;
mod writer;

pub use error::CaptureError;
pub use link::{LinkType, Normalised, to_ethernet};
pub use pcapng_writer::{Direction, PcapngInterface, PcapngPacket, PcapngStatistics, PcapngWriter};
pub use preamble::{PREAMBLE_LEN, Preamble};
pub use reader::{CaptureReader, CapturedFrame};
pub use split::{MAX_CAPTURED, Split, normalise};
pub use writer::{PcapWriter, Resolution};
