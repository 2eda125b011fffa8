//! TOML → [`Config`], valid by construction.
mod model;

pub use model::{Config, Cores, Detect, Eal, Export, Flow, Limits, Port, Scorer, Timeouts, Vm};
