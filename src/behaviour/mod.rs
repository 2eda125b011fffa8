//! Flow records → score, flags, alerts.
