//! The protocols. Each sees the world through one [`Cx`], keeps its own deadlines, returns what it
//! concluded as a small value, and never names another: where they meet is `engine`.

pub mod antientropy;
pub mod contact;
pub mod contest;
pub mod damping;
pub mod doubt;
pub mod hearing;
pub mod hyparview;
pub mod island;
pub mod keepalive;
pub mod lane;
pub mod phi;
pub mod plumtree;
pub mod probe;
pub mod query;
pub mod request;
pub mod rumor;
pub mod stall;
pub mod stream;
pub mod suspicion;

use crate::config::Config;
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::time::Now;

/// All of a protocol's contact with the world.
pub struct Cx<'a> {
    pub now: Now,
    pub rng: &'a mut Rng,
    pub config: &'a Config,
    pub out: &'a mut Outbox,
}
