//! Whole clusters in one thread: many engines, one virtual clock, and the same run again for the same seed.
//!
//! The engines are those that run on sockets, and what travels between them is their bytes. What is simulated is the
//! rest: the network ([`net`]), the machines and their clocks ([`world`]), and time, which jumps to the next event.
//!
//! A [`World`] is for whoever wants to act between two steps. A [`Scenario`] says beforehand what happens, and gives a
//! [`Report`] over many seeds.
//!
//! ```
//! use bruit_core::{Config, MemberState};
//! use bruit_core::sim::{Duration, Network, World};
//!
//! let mut world = World::new(7);
//! world.set_network(Network::lossy(0.1))?;
//! let nodes = world.cluster(20, &Config::new());
//! world.run_until(Duration::from_secs(30), |w| w.all_list(&nodes, 20)).expect("they find each other");
//! world.kill(nodes[3]);
//! let noticed = world.run_until(Duration::from_secs(30), |w| w.state(nodes[0], nodes[3]) == Some(MemberState::Dead));
//! assert!(noticed.is_some());
//! # Ok::<(), bruit_core::Error>(())
//! ```

pub mod check;
pub mod net;
mod queue;
pub mod report;
pub mod scenario;
pub mod script;
pub mod swarm;
pub mod transcript;
pub mod trial;
pub mod world;

pub use crate::time::Duration;
pub use net::{Delay, Loss, Network};
pub use report::{Report, Run, compare};
pub use scenario::{Fault, Phase, Scenario, Topology, Until, Who};
pub use trial::Trial;
pub use world::{Clock, Judges, NodeIndex, Traffic, World};

/// The examples of the page for users.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/SIMULATOR.md")]
mod page {}
