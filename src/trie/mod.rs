//! Rows → an immutable search structure → the first row that each packet of a burst lies in.
pub mod address;
mod row;

pub use row::{BATCH, Batch, Key, Kind, NO_ROW, Ranges, Row, Service, Side, mask};

/// A stand-in with the final interface.
#[derive(Debug)]
pub struct Engine {
    rows: Vec<Row>,
}

impl Engine {
    pub fn build(rows: &[Row]) -> Result<Engine, BuildError> {
        Ok(Engine { rows: rows.to_vec() })
    }

    /// Position of the first non-passive row that holds each packet, or [`NO_ROW`].
    pub fn lookup(&self, batch: &Batch, found: &mut [u32; BATCH]) {
        for at in 0..batch.len {
            let key = batch.key(at);
            let row = self.rows.iter().position(|row| !row.passive && row.holds(&key));
            found[at] = row.map_or(NO_ROW, |row| row as u32);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.rows)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot build")]
pub struct BuildError;
