//! The search structure as its users see it: [`Engine`] to look up, [`Editor`] to change.

use std::sync::Arc;

use super::block::{FLAG_BITS, PASSIVE};
use super::edit::{Change, RebuildNeeded, TreeEditor};
use super::isa::Isa;
use super::kernel;
use super::row::{BATCH, Batch, Key, NO_ROW, Row};
use super::small::Small;
use super::tree::{self, Step, Tree};

/// Why rows cannot be built into a search structure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("too many distinct conditions on protocol and ports: at most 65535 are possible")]
    TooManyServices,
    #[error("{rows} rows, number {first} the first of them, cannot be told apart by addresses, protocol or ports")]
    TooManyAlike { rows: usize, first: u32 },
    #[error("more rows than numbers for them")]
    TooLarge,
}

/// One generation of rows, immutable. Copies share everything.
#[derive(Clone, Debug)]
pub struct Engine {
    tree: Arc<Tree>,
    /// The same rows for the small-set kernel, where they fit it.
    small: Option<Arc<Small>>,
}

/// Most bytes that the small-set kernel's tables may take for up to [`FEW_ROWS`]: it is several times as fast as the
/// trie, where it fits.
const SMALL_LIMIT: usize = 16 << 20;
const FEW_ROWS: usize = 2048;
/// With more rows its tables grow with the square of their number: trie and tables together stay below this then.
const MANY_LIMIT: usize = 1_000_000;

/// What a lookup gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// By packet: the least rank of a row that holds it and is not passive, or [`NO_ROW`].
    pub ranks: [u32; BATCH],
    /// Packets, as bits, that may lie in passive rows of lesser rank; [`Engine::passive`] tells which.
    pub passed: u32,
}

/// What a packet meets on its way, for people to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// A table that looked at some bits of a field.
    Table { field: &'static str, shift: u32, bits: u32, rest: bool },
    /// Rows compared, sixteen to a block.
    Leaf { blocks: usize },
    /// A row that holds the packet.
    Row { rank: u32, passive: bool },
}

impl Engine {
    /// Builds from rows whose ranks are their positions.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(rows: &[Row]) -> Result<Self, BuildError> {
        let ranks: Vec<u32> = (0..rows.len() as u32).collect();
        Self::with_ranks(rows, &ranks, &[], Isa::best())
    }

    /// Builds from rows with ranks, ascending; rows of one rank are alternatives. `meanings` are by rank, see
    /// [`Engine::meaning`]; none are needed.
    ///
    /// # Errors
    /// See [`BuildError`].
    ///
    /// # Panics
    /// When the processor does not have `isa`.
    pub fn with_ranks(rows: &[Row], ranks: &[u32], meanings: &[u32], isa: Isa) -> Result<Self, BuildError> {
        assert!(Isa::available().contains(&isa), "this processor has no {isa:?}");
        let engine = Self { tree: Arc::new(tree::build(rows, ranks, meanings, isa, 0)?.tree), small: None };
        Ok(engine.with_small(rows, ranks))
    }

    /// With the small-set kernel, if the rows, which must be those of this generation, fit it.
    #[must_use]
    pub fn with_small(self, rows: &[Row], ranks: &[u32]) -> Self {
        let limit = match rows.len() {
            0..=FEW_ROWS => SMALL_LIMIT,
            _ => MANY_LIMIT.saturating_sub(self.tree.memory_bytes()),
        };
        let small = Small::build(rows, limit).map(|small| Arc::new(small.with_ranks(ranks)));
        Self { small, ..self }
    }

    /// Without the small-set kernel.
    #[must_use]
    pub fn tree_only(self) -> Self {
        Self { small: None, ..self }
    }

    /// Whether the small-set kernel serves these rows.
    pub fn is_small(&self) -> bool {
        self.small.is_some()
    }

    /// The same rows, searched with other instructions.
    ///
    /// # Panics
    /// When the processor does not have them.
    #[must_use]
    pub fn with_isa(&self, isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this processor has no {isa:?}");
        Self { tree: Arc::new(Tree { isa, ..(*self.tree).clone() }), small: self.small.clone() }
    }

    /// Looks up a batch. Does not allocate, lock or panic.
    pub fn search(&self, batch: &Batch) -> Found {
        if let Some(small) = &self.small {
            return small.search(batch, self.tree.isa);
        }
        let found = kernel::lookup(&self.tree, batch);
        let ranks = found.ranks.map(|rank| if rank == kernel::NOTHING { NO_ROW } else { rank >> FLAG_BITS });
        Found { ranks, passed: found.passed }
    }

    /// The least rank for each packet of the batch, or [`NO_ROW`].
    pub fn lookup(&self, batch: &Batch, ranks: &mut [u32; BATCH]) {
        *ranks = self.search(batch).ranks;
    }

    /// What was given as the meaning of a rank that this generation has rows of.
    ///
    /// # Panics
    /// When no meaning was given.
    pub fn meaning(&self, rank: u32) -> u32 {
        self.tree.meaning(rank)
    }

    /// Calls `visit` with the ranks below `below` of passive rows that hold `key`, in no order. Does not allocate.
    pub fn passive(&self, key: &Key, below: u32, mut visit: impl FnMut(u32)) {
        self.tree.passive(key, below, &mut visit);
    }

    /// The way of one packet through the structure.
    pub fn visits(&self, key: &Key) -> Vec<Visit> {
        let mut visits = Vec::new();
        self.tree.walk(key, |step| {
            visits.push(match step {
                Step::Table { window, rest } => Visit::Table {
                    field: super::block::FIELD_NAMES[usize::from(window.field)],
                    shift: window.shift,
                    bits: window.bits,
                    rest,
                },
                Step::Leaf { blocks } => Visit::Leaf { blocks },
                Step::Row { rank } => Visit::Row { rank: rank >> FLAG_BITS, passive: rank & PASSIVE != 0 },
            });
        });
        visits
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.tree.memory_bytes() + self.small.as_ref().map_or(0, |small| small.memory_bytes())
    }
}

/// The writer's end: makes one generation from another.
#[derive(Debug)]
pub struct Editor {
    editor: TreeEditor,
    engine: Engine,
}

impl Editor {
    /// Builds from rows with ranks, ascending, and what each rank means, with room for changes.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(rows: &[Row], ranks: &[u32], meanings: &[u32]) -> Result<Self, BuildError> {
        let editor = TreeEditor::new(rows, ranks, meanings, Isa::best())?;
        let engine = Engine { tree: Arc::new(editor.tree().clone()), small: None }.with_small(rows, ranks);
        Ok(Self { editor, engine })
    }

    /// The generation made last.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether no living generation has rows of this rank: only then may rows of another meaning have it.
    pub fn is_free(&self, rank: u32) -> bool {
        self.editor.is_free(rank)
    }

    /// Makes all changes, or none. Earlier generations stay as they are for as long as somebody holds them.
    ///
    /// # Errors
    /// When the changes do not fit the structure: all rows must then be built anew. Nothing has changed.
    pub fn commit(&mut self, changes: &[Change<'_>]) -> Result<&Engine, RebuildNeeded> {
        let tree = self.editor.commit(changes)?.clone();
        self.engine = Engine { tree: Arc::new(tree), small: None };
        Ok(&self.engine)
    }
}
