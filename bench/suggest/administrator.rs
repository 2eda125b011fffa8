use crate::common::Results;
use crate::world::World;
pub fn measure(_: &mut Results, _: &[World]) {}
