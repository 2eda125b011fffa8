//! Arbitrary text through the configuration loader: a configuration or errors that can be shown, never a panic.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run config --sanitizer none fuzz/corpus/config config`
#![no_main]

use gnomon::config;
use gnomon::rules::{Compiled, Labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match config::parse(text, "fuzzed.toml") {
    Ok(config) => {
        // What the loader calls valid must compile, within the limits it states itself.
        let labels = Labels::new(config.limits.rules);
        let _ = Compiled::build(&config.policy, 1, &labels);
    }
    Err(errors) => {
        assert!(!errors.errors.is_empty());
        assert!(!errors.to_string().is_empty());
    }
});
