//! A model as bytes, and back: the same scores to the bit.
//!
//! ```text
//! "gnomonML" │ format u16 │ bytes of the body u64 │ SHA-1 of the body │ body
//! ```
//! Numbers are little-endian. The body is in postcard's format: fields in the order of the structs, so a change of any of
//! them is a new [`FORMAT`]. What vectors and indices rest on is checked when it is read: bytes from outside, whatever
//! they are, give a model or an error.

use sha1::{Digest, Sha1};

use super::fused::Model;

const MAGIC: &[u8; 8] = b"gnomonML";
const HEADER: usize = MAGIC.len() + 2 + 8 + 20;
/// Version of the bytes. Raised when the members of a model, or their fields, change.
pub const FORMAT: u16 = 1;

/// Why bytes are no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    #[error("these bytes are no model of gnomon")]
    Foreign,
    #[error("the model is in format {found}, this gnomon reads format {FORMAT}: train it anew")]
    Format { found: u16 },
    #[error("the model is cut off: {found} of {wanted} bytes are there")]
    Truncated { found: u64, wanted: u64 },
    #[error("the model is damaged: its checksum does not match")]
    Checksum,
    #[error("the model cannot be read: {0}")]
    Broken(String),
}

impl Model {
    /// All of it as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Vectors of numbers in memory: there is nothing that could fail.
        let body = postcard::to_stdvec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&Sha1::digest(&body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// What [`Model::to_bytes`] wrote, for the instructions of this processor.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BlobError> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(BlobError::Foreign);
        };
        let truncated = |wanted: u64| BlobError::Truncated { found: bytes.len() as u64, wanted };
        let (format, rest) = rest.split_first_chunk().ok_or(truncated(HEADER as u64))?;
        match u16::from_le_bytes(*format) {
            FORMAT => {}
            found => return Err(BlobError::Format { found }),
        }
        let (length, rest) = rest.split_first_chunk().ok_or(truncated(HEADER as u64))?;
        let (sum, body) = rest.split_first_chunk::<20>().ok_or(truncated(HEADER as u64))?;
        let length = u64::from_le_bytes(*length);
        if (body.len() as u64) < length {
            return Err(truncated(length.saturating_add(HEADER as u64)));
        }
        if body.len() as u64 != length || Sha1::digest(body).as_slice() != sum {
            return Err(BlobError::Checksum);
        }
        let broken = |error: postcard::Error| BlobError::Broken(error.to_string());
        let (model, left) = postcard::take_from_bytes::<Model>(body).map_err(broken)?;
        match left {
            [] if model.is_sound() => Ok(model),
            [] => Err(BlobError::Broken("its parts do not fit together".to_owned())),
            _ => Err(BlobError::Broken(format!("{} bytes are left over", left.len()))),
        }
    }

    /// Whether the parts fit together. Each part was checked alone when it was read.
    fn is_sound(&self) -> bool {
        let width = self.grid.width();
        self.grid.is_sound()
            && self.forest.width() == width
            && self.neighbours.as_ref().is_none_or(|m| m.width() == width)
            && self.ecod.as_ref().is_none_or(|m| m.is_sound(width))
            && self.pca.as_ref().is_none_or(|m| m.is_sound(width))
            && self.svm.as_ref().is_none_or(|m| m.is_sound(width))
            && self.tails.iter().all(|tail| tail.is_sound())
            && self.weights.iter().all(|weight| (0.0..=1.0).contains(weight))
            && self.calibration.is_sound()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rand_core::SeedableRng;
    use rand_pcg::Pcg32;

    use super::super::{Member, Rows, Training, forest::below};
    use super::*;
    use crate::trie::Isa;

    fn rows(count: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut rng = Pcg32::seed_from_u64(seed);
        (0..count * width).map(|i| (below(&mut rng, 1000) * (1 + i % width)) as f32 / 7.0).collect()
    }

    fn model(count: usize, width: usize) -> Model {
        let members = Member::ALL.into_iter().collect();
        let training = Training { members, trees: 30, sample: 256, contamination: 0.01, seed: 9, isa: Isa::best() };
        Model::train(Rows::new(&rows(count, width, 1), width), &training)
    }

    fn scores(model: &Model, values: &[f32]) -> Vec<u32> {
        let rows = Rows::new(values, model.width());
        let mut out = vec![0.0; rows.len()];
        model.score(rows, &mut model.scratch(), &mut out);
        out.iter().flat_map(|raw| [raw.to_bits(), model.calibration().calibrate(*raw).to_bits()]).collect()
    }

    #[test]
    fn a_model_that_was_read_gives_the_same_bits() {
        for (count, width) in [(0, 3), (1, 26), (500, 26), (5000, 26), (3000, 9)] {
            let model = model(count, width);
            let read = Model::from_bytes(&model.to_bytes()).unwrap();
            let fresh = rows(1500, width, 2);
            assert_eq!(scores(&model, &fresh), scores(&read, &fresh), "{count} rows of {width}");
            assert_eq!(model.to_bytes(), read.to_bytes());
            let row = &fresh[..width];
            let parts = |model: &Model| model.contributions(row, &mut model.scratch());
            assert_eq!(parts(&model), parts(&read));
        }
    }

    #[test]
    fn damage_is_named() {
        let bytes = model(300, 5).to_bytes();
        let error = |bytes: &[u8]| Model::from_bytes(bytes).unwrap_err();
        assert_eq!(error(b"SQLite format 3"), BlobError::Foreign);
        assert_eq!(error(&[]), BlobError::Foreign);
        let mut other = bytes.clone();
        other[8] = 77;
        assert_eq!(error(&other), BlobError::Format { found: 77 });
        let whole = bytes.len() as u64;
        for cut in [9, 17, 30, 38, bytes.len() / 2, bytes.len() - 1] {
            let found = error(&bytes[..cut]);
            assert!(matches!(found, BlobError::Truncated { .. }), "{cut}: {found}");
            assert!(cut < HEADER || found == BlobError::Truncated { found: cut as u64, wanted: whole });
        }
        for at in [20, 40, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert_eq!(error(&other), BlobError::Checksum, "{at}");
        }
        assert_eq!(error(&[&bytes[..], b"x"].concat()), BlobError::Checksum);
    }

    /// As somebody would who can reckon checksums.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let parts = [&MAGIC[..], &FORMAT.to_le_bytes(), &(body.len() as u64).to_le_bytes(), &Sha1::digest(body), body];
        parts.concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn forged_bodies_give_an_error_or_a_model_that_scores(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut body = model(60, 4).to_bytes()[HEADER..].to_vec();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(model) = Model::from_bytes(&sealed(&body)) {
                prop_assert!(model.width() == 4);
                scores(&model, &rows(20, 4, 3));
            }
        }
    }
}
