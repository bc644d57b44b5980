//! The header of a packet, and what its tag binds.

use ring::aead::{self, LessSafeKey, UnboundKey};

use super::{FLAGS, HEADER, OVERHEAD, PLAIN, RECORD, Reject, TAG, TO_STRANGER, VERSION, le64};
use crate::id::RunId;

/// Which of a sender's two counters. The number is the first byte of the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Datagram = 0,
    Record = 1,
}

pub(super) struct Header {
    pub lane: Lane,
    pub stranger: bool,
    pub plain: bool,
    pub key_id: u16,
    pub run: RunId,
    pub counter: u64,
}

impl Header {
    pub(super) fn bytes(&self) -> [u8; HEADER] {
        let mut flags = 0;
        flags |= if self.stranger { TO_STRANGER } else { 0 };
        flags |= if self.plain { PLAIN } else { 0 };
        flags |= if self.lane == Lane::Record { RECORD } else { 0 };
        let mut bytes = [0; HEADER];
        bytes[0] = VERSION;
        bytes[1] = flags;
        bytes[2..4].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.run.get().to_le_bytes());
        bytes[12..18].copy_from_slice(&self.counter.to_le_bytes()[..6]);
        bytes
    }

    /// Of a whole envelope: what is shorter than an empty one is no envelope.
    pub(super) fn read(bytes: &[u8]) -> Result<Header, Reject> {
        if bytes.len() < OVERHEAD {
            return Err(Reject::Short);
        }
        if bytes[0] != VERSION {
            return Err(Reject::Version);
        }
        let flags = bytes[1];
        if flags & !FLAGS != 0 {
            return Err(Reject::Flags);
        }
        Ok(Header {
            lane: if flags & RECORD == 0 { Lane::Datagram } else { Lane::Record },
            stranger: flags & TO_STRANGER != 0,
            plain: flags & PLAIN != 0,
            key_id: u16::from_le_bytes([bytes[2], bytes[3]]),
            run: RunId::new(le64(&bytes[4..12])).ok_or(Reject::Session)?,
            counter: le64(&bytes[12..18]),
        })
    }

    fn nonce(&self) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[0] = self.lane as u8;
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

/// What the tag binds the frames to: the header, and after it the receiver.
pub(super) struct Bound([u8; HEADER + 8]);

impl Bound {
    pub(super) fn new(head: &Header, to: Option<RunId>) -> Bound {
        let mut bytes = [0; HEADER + 8];
        bytes[..HEADER].copy_from_slice(&head.bytes());
        bytes[HEADER..].copy_from_slice(&to.map_or(0, RunId::get).to_le_bytes());
        Bound(bytes)
    }

    pub(super) fn encrypt(&self, key: &[u8; 32], head: &Header, frames: &mut [u8]) -> [u8; TAG] {
        let tag = cipher(key)
            .seal_in_place_separate_tag(head.nonce(), aead::Aad::from(&self.0), frames)
            .expect("frames are far below ChaCha20's 256 GiB");
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// False, and `frames` zero, where the tag does not fit.
    pub(super) fn decrypt(&self, key: &[u8; 32], head: &Header, frames: &mut [u8], tag: &[u8; TAG]) -> bool {
        let aad = aead::Aad::from(&self.0);
        cipher(key).open_in_place_separate_tag(head.nonce(), aad, (*tag).into(), frames, 0..).is_ok()
    }

    pub(super) fn checksum(&self, label: &crc32fast::Hasher, frames: &[u8]) -> [u8; TAG] {
        let mut crc = label.clone();
        crc.update(&self.0[HEADER..]);
        crc.update(&self.0[..HEADER]);
        crc.update(frames);
        let mut tag = [0; TAG];
        tag[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        tag
    }
}

/// Made for each packet: 25 ns, where a kept one would be 16 times as large as its key.
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("a key of 32 bytes"))
}
