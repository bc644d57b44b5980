//! Many engines, one virtual clock: whole clusters in one thread, the same run again for the same seed.

pub mod world;

pub use world::{Faults, NodeIndex, World};
