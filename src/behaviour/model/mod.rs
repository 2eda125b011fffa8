//! Rows of numbers → how unusual each is: training, and scoring a block at a time.
//!
//! In: rows of features ([`Rows`]). Out: a raw score a row, and what it means ([`Calibration`]). Pure: no thread,
//! clock or file; a model is immutable, so it is trained aside and swapped whole. The instructions are chosen once,
//! when a model is trained; all give the same bits.

mod bits;
mod calibrate;
mod ecod;
mod forest;
mod fused;
mod grid;
mod kernel;
mod member;
mod neighbours;
mod pca;
mod stored;
mod svm;
mod tail;

pub use calibrate::Calibration;
pub use fused::{Model, Scratch, Training};
pub use grid::Rows;
pub use member::{Member, Members};
pub use stored::{BlobError, FORMAT};
