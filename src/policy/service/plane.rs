//! Where a policy acts, as the service sees it.

use crate::policy::book::{Delta, Derived};
use crate::rules::{Compiler, DEFAULT_MEMORY, Decision, Labels, Policy};

/// A data plane, or what stands for one. A generation is compiled aside, stored by the service, then put in force.
pub trait Plane: Send {
    /// Compiles the next generation aside. What is in force stays.
    ///
    /// # Errors
    /// It does not compile; says why and what to do. Nothing has changed then.
    fn prepare(&mut self, derived: &Derived, delta: &Delta, generation: u32) -> Result<(), String>;

    /// Puts in force what was prepared.
    ///
    /// # Errors
    /// Never for what was prepared, unless the data plane itself is gone.
    fn publish(&mut self) -> Result<(), String>;

    /// Forgets what was prepared. `derived`: as it was before.
    fn abandon(&mut self, derived: &Derived);

    /// What each worker reports to have in force; nothing where there are none.
    fn reports(&mut self) -> Vec<u32> {
        Vec::new()
    }
}

/// Compiles, and no more: for a service that runs without a data path.
#[derive(Debug)]
pub struct CompileOnly {
    compiler: Compiler,
    default: Decision,
}

impl CompileOnly {
    /// `rules`: most distinct rule ids.
    ///
    /// # Errors
    /// Never for an empty policy.
    pub fn new(rules: usize, default: Decision) -> Result<Self, crate::rules::CompileError> {
        let policy = Policy { default, ..Policy::default() };
        let compiler = Compiler::new(policy, 1, Labels::new(rules).into(), DEFAULT_MEMORY)?;
        Ok(Self { compiler, default })
    }
}

impl Plane for CompileOnly {
    fn prepare(&mut self, derived: &Derived, delta: &Delta, generation: u32) -> Result<(), String> {
        let made = if delta.whole {
            self.compiler.replace(derived.policy(self.default), generation)
        } else {
            self.compiler.regroup(&derived.groups_of(delta), &delta.rules, generation)
        };
        made.map(drop).map_err(|error| error.to_string())
    }

    fn publish(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn abandon(&mut self, derived: &Derived) {
        let number = self.compiler.compiled().generation() + 1;
        if let Err(error) = self.compiler.replace(derived.policy(self.default), number) {
            log::error!("the rules in force do not compile again: {error}");
        }
    }
}
