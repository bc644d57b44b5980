//! Errors of the application's making, or the system's. What peers do wrong is counted, never returned.

use alloc::string::String;
use core::fmt;

/// What went wrong and, in `text`, what was expected. Unless a function says otherwise, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub text: String,
    /// The operating system's number (`errno`), or 0.
    pub errno: i32,
}

impl Error {
    pub fn new(code: Code, text: impl Into<String>) -> Error {
        Error { code, text: text.into(), errno: 0 }
    }

    #[cfg(feature = "std")]
    pub fn io(what: impl fmt::Display, cause: &std::io::Error) -> Error {
        Error { code: Code::Io, text: alloc::format!("{what}: {cause}"), errno: cause.raw_os_error().unwrap_or(0) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)
    }
}

impl core::error::Error for Error {}

pub type Result<T> = core::result::Result<T, Error>;

macro_rules! codes {
    ($($variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// The error codes, as the C interface numbers them. Numbers are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code { $(#[doc = $text] $variant = $code,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// `E_INVALID`, `E_TIMEOUT`, …
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The code of that number.
            pub fn from_number(number: i64) -> Option<Code> {
                Code::ALL.iter().copied().find(|&code| code as i64 == number)
            }

            pub const fn describe(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }
    };
}

impl Code {
    /// What a member says of its answer. Some codes speak of the caller's own node and handles: a member that sends one of
    /// those would make its peer give up a node that is well.
    pub(crate) fn of_answer(number: i64) -> Code {
        use Code::{Buffer, Deadlock, Failed, Forked, Handle, Panic, Remote, State};
        match Code::from_number(number) {
            None | Some(Handle | State | Deadlock | Forked | Buffer | Failed | Panic) => Remote,
            Some(code) => code,
        }
    }
}

codes! {
    Invalid = -1, "E_INVALID", "an argument is NULL, out of range or malformed";
    Handle = -2, "E_HANDLE", "the handle is not one of ours, or was freed";
    State = -3, "E_STATE", "not possible in this state";
    Deadlock = -4, "E_DEADLOCK", "called in a callback of the same node, where it would wait for itself";
    Forked = -5, "E_FORKED", "the node was started by another process; a forked child cannot use it";
    Timeout = -6, "E_TIMEOUT", "not finished in time; the work may go on";
    Buffer = -7, "E_BUFFER", "the buffer is too small; the needed size was written";
    TooBig = -8, "E_TOO_BIG", "larger than the limit";
    NotFound = -9, "E_NOT_FOUND", "no such thing";
    Address = -10, "E_ADDRESS", "not an address, or it does not resolve";
    Io = -11, "E_IO", "the operating system refused";
    Auth = -12, "E_AUTH", "a key is missing or wrong";
    Busy = -13, "E_BUSY", "no room, or another thread is at it; try again";
    Refused = -14, "E_REFUSED", "the cluster refused this node";
    NoQuorum = -15, "E_NO_QUORUM", "too few members can be reached";
    Corrupt = -16, "E_CORRUPT", "stored data is damaged";
    Failed = -17, "E_FAILED", "the node has failed and must be freed";
    Panic = -18, "E_PANIC", "a bug in bruit; the node is unusable";
    NoHandler = -19, "E_NO_HANDLER", "nobody listens to that topic there";
    Unreachable = -20, "E_UNREACHABLE", "the member is dead or has left";
    Canceled = -21, "E_CANCELED", "canceled by the caller";
    Remote = -22, "E_REMOTE", "the other side's handler failed";
    NoReply = -23, "E_NO_REPLY", "the other side's handler did not reply";
    Limit = -24, "E_LIMIT", "a configured limit is reached";
}
