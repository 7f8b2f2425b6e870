//! Generated differential tests, the pure part: a seed gives a scenario, and a scenario can be made smaller.
//!
//! - [`scenario`], [`rule`], [`step`], [`judge`], [`odd`], [`family`]: what a scenario is, as data that can be printed and
//!   stored;
//! - [`generate`]: from a seed to a scenario, always the same one;
//! - [`keep`], [`shrink`]: a part of a scenario, and the smallest part that still fails;
//! - [`coverage`]: what a run has hit;
//! - [`rng`]: the numbers that a seed stands for.
//!
//! Running a scenario, and comparing what came of it with netfast off and on, is the integration tests' part.

pub mod coverage;
pub mod family;
pub mod generate;
pub mod judge;
pub mod keep;
pub mod names;
pub mod odd;
pub mod rng;
pub mod rule;
pub mod scenario;
pub mod shrink;
pub mod step;
