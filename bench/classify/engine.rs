//! Which part of the engine is measured.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use gnomon::trie::{Engine, Isa, Row};

#[derive(clap::Args, Clone, Copy, Debug)]
pub struct EngineOptions {
    /// How the engine searches; by itself it takes the small-set kernel where the rules fit it
    #[arg(long, value_enum, default_value_t = Kernel::Auto, conflicts_with = "updates")]
    kernel: Kernel,
    /// Instructions of the tree kernel
    #[arg(long, value_enum, default_value_t = Instructions::Auto, conflicts_with = "updates")]
    isa: Instructions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kernel {
    Auto,
    Small,
    Tree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Instructions {
    Auto,
    Avx512,
    Avx2,
    Portable,
}

impl EngineOptions {
    pub fn build(self, rows: &[Row]) -> Result<Engine> {
        let isa = match self.isa {
            Instructions::Auto => Isa::best(),
            Instructions::Avx512 => Isa::Avx512,
            Instructions::Avx2 => Isa::Avx2,
            Instructions::Portable => Isa::Portable,
        };
        ensure!(Isa::available().contains(&isa), "--isa: this processor has no {isa:?}, only {:?}", Isa::available());
        let ranks: Vec<u32> = (0..rows.len() as u32).collect();
        let engine = Engine::with_ranks(rows, &ranks, &[], isa)?;
        let wanted = self.kernel != Kernel::Small || engine.is_small();
        ensure!(wanted, "--kernel small: {} rules do not fit the small-set kernel", rows.len());
        Ok(if self.kernel == Kernel::Tree { engine.tree_only() } else { engine })
    }
}

/// For people to read.
pub fn kernel_name(engine: &Engine) -> &'static str {
    if engine.is_small() { "small-set kernel" } else { "tree kernel" }
}
