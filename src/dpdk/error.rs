//! C return codes become [`DpdkError`] at this boundary.

use std::ffi::CStr;

use super::ffi;

/// A DPDK call that failed: what was tried, DPDK's reason, and what the operator can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}{}", .hint.as_ref().map(|h| format!("\n  help: {h}")).unwrap_or_default())]
pub struct DpdkError {
    pub what: String,
    pub reason: String,
    pub hint: Option<String>,
}

impl DpdkError {
    /// An error of our own, without a code from DPDK.
    pub fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into(), hint: None }
    }

    /// From a negative return code.
    pub fn from_code(what: impl Into<String>, code: i32) -> Self {
        // SAFETY: rte_strerror accepts any number and returns a NUL-terminated string in per-thread
        // storage, which is copied before the next call.
        let reason = unsafe { CStr::from_ptr(ffi::rte_strerror(code.saturating_abs())) };
        Self::new(what, reason.to_string_lossy().into_owned())
    }

    /// From `rte_errno` of this thread.
    pub fn last(what: impl Into<String>) -> Self {
        // SAFETY: reads this thread's rte_errno.
        Self::from_code(what, unsafe { ffi::gn_errno() })
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `Ok` for codes of zero and above.
pub(super) fn check(code: i32, what: impl FnOnce() -> String) -> Result<(), DpdkError> {
    if code < 0 { Err(DpdkError::from_code(what(), code)) } else { Ok(()) }
}
