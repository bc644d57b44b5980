//! The number of each kind of frame.

use super::Frame;

macro_rules! kinds {
    ($($name:ident = $kind:literal;)*) => {
        $(pub(super) const $name: u8 = $kind;)*

        /// What a kind is called in the table above.
        pub const fn kind_name(kind: u8) -> Option<&'static str> {
            match kind {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

kinds! {
    HELLO = 1; COOKIE = 2; REFUSED = 3; JOIN = 4; WELCOME = 5;
    PING = 8; ACK = 9; PING_REQ = 10; NACK = 11; HEARTBEATS = 12;
    RECORD = 16; ALIVE = 17; SUSPECT = 18; DEAD = 19; LEFT = 20; STALLED = 21;
    STATE = 24; STATE_NEWS = 25; STATE_PULL = 26;
    DIGEST = 32; SUMMARY = 33; WANT = 34; TABLE_PULL = 35; TABLE_NEXT = 36;
    MESSAGE = 40; ITEM = 41; ITEM_ACK = 42;
    OVERLAY_JOIN = 48; FORWARD_JOIN = 49; NEIGHBOR = 50; NEIGHBOR_REPLY = 51; DISCONNECT = 52;
    SHUFFLE = 53; SHUFFLE_REPLY = 54;
    GOSSIP = 56; IHAVE = 57; GRAFT = 58; PRUNE = 59; IDONTWANT = 60; VECTOR = 61; GONE = 62;
}

impl Frame<'_> {
    pub const fn kind(&self) -> u8 {
        match self {
            Frame::Hello { .. } => HELLO,
            Frame::Cookie { .. } => COOKIE,
            Frame::Refused { .. } => REFUSED,
            Frame::Join { .. } => JOIN,
            Frame::Welcome { .. } => WELCOME,
            Frame::Ping { .. } => PING,
            Frame::Ack { .. } => ACK,
            Frame::PingReq { .. } => PING_REQ,
            Frame::Nack { .. } => NACK,
            Frame::Heartbeats { .. } => HEARTBEATS,
            Frame::Record(_) => RECORD,
            Frame::Alive { .. } => ALIVE,
            Frame::Suspect { .. } => SUSPECT,
            Frame::Dead { .. } => DEAD,
            Frame::Left { .. } => LEFT,
            Frame::Stalled { .. } => STALLED,
            Frame::State { .. } => STATE,
            Frame::StateNews { .. } => STATE_NEWS,
            Frame::StatePull { .. } => STATE_PULL,
            Frame::Digest { .. } => DIGEST,
            Frame::Summary { .. } => SUMMARY,
            Frame::Want { .. } => WANT,
            Frame::TablePull { .. } => TABLE_PULL,
            Frame::TableNext { .. } => TABLE_NEXT,
            Frame::Message { .. } => MESSAGE,
            Frame::Item(_) => ITEM,
            Frame::ItemAck { .. } => ITEM_ACK,
            Frame::OverlayJoin => OVERLAY_JOIN,
            Frame::ForwardJoin { .. } => FORWARD_JOIN,
            Frame::Neighbor { .. } => NEIGHBOR,
            Frame::NeighborReply { .. } => NEIGHBOR_REPLY,
            Frame::Disconnect { .. } => DISCONNECT,
            Frame::Shuffle { .. } => SHUFFLE,
            Frame::ShuffleReply { .. } => SHUFFLE_REPLY,
            Frame::Gossip(_) => GOSSIP,
            Frame::Ihave(_) => IHAVE,
            Frame::Graft(_) => GRAFT,
            Frame::Prune { .. } => PRUNE,
            Frame::Idontwant { .. } => IDONTWANT,
            Frame::Vector { .. } => VECTOR,
            Frame::Gone { .. } => GONE,
        }
    }

    /// It is about who is whose neighbour.
    pub const fn is_of_overlay(&self) -> bool {
        matches!(self.kind(), OVERLAY_JOIN..=SHUFFLE_REPLY)
    }
}
