//! Arbitrary text as an expression: read, or refused with a place in it; never a panic.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run expression --sanitizer none`
#![no_main]

use gnomon::filter::{Expression, Schema};
use gnomon::flow::FlowRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for schema in [Schema::FLOW, Schema::PACKET] {
        match Expression::parse(text, &schema) {
            Ok(expression) => {
                let record = FlowRecord::default();
                assert!(!expression.matches(&record) || expression.may_match(&record));
            }
            Err(error) => {
                assert!(error.expression.get(error.place.clone()).is_some());
                assert!(!error.to_string().is_empty());
            }
        }
    }
});
