//! Things that are replicated: each entry carries the version its origin gave it, and what one replica
//! lacks is what lies above its version.

pub mod state;
