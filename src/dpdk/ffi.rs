//! DPDK as bindgen sees it. Private to `dpdk`: nothing of this leaves the folder.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, dead_code, unreachable_pub, clippy::all)]
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, missing_debug_implementations)]

include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));
