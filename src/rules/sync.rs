//! The atomics of [`super::publish`]. `tests/publish_model.rs` puts a model checker's in their place.

pub(super) use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
