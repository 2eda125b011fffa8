//! Equal slices get one number.

use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Numbers go up from zero, in the order in which slices are first seen.
#[derive(Debug, Default)]
pub struct Interner<T> {
    numbers: FxHashMap<Rc<[T]>, u32>,
    slices: Vec<Rc<[T]>>,
}

impl<T: Copy + Eq + Hash> Interner<T> {
    pub fn intern(&mut self, slice: &[T]) -> u32 {
        if let Some(number) = self.numbers.get(slice) {
            return *number;
        }
        let number = self.slices.len() as u32;
        let slice: Rc<[T]> = slice.into();
        self.numbers.insert(slice.clone(), number);
        self.slices.push(slice);
        number
    }

    pub fn get(&self, number: u32) -> &[T] {
        &self.slices[number as usize]
    }

    pub fn len(&self) -> usize {
        self.slices.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        self.slices.iter().map(|slice| &**slice)
    }

    /// The slices, one after the other.
    pub fn concat(&self) -> Vec<T> {
        self.iter().flatten().copied().collect()
    }
}
