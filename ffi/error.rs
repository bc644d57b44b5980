//! Errors at the border: codes, their table, the calling thread's last error, and the guard around every call.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_int};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{LazyLock, Once};

use bruit_core::error::{Code, Error, Result};

use crate::convert::c_string;

/// Success.
pub const BRUIT_OK: c_int = 0;
/// An argument is NULL, out of range or malformed.
pub const BRUIT_E_INVALID: c_int = -1;
/// The handle is NULL, none of ours, or was freed.
pub const BRUIT_E_HANDLE: c_int = -2;
/// Not possible in this state.
pub const BRUIT_E_STATE: c_int = -3;
/// Called in a callback of the same node, where it would wait for itself.
pub const BRUIT_E_DEADLOCK: c_int = -4;
/// The node was started by another process: a forked child cannot use it.
pub const BRUIT_E_FORKED: c_int = -5;
/// Not finished in time. The work may go on, or have happened; each function says which.
pub const BRUIT_E_TIMEOUT: c_int = -6;
/// The buffer is too small; the needed size was written.
pub const BRUIT_E_BUFFER: c_int = -7;
/// Larger than the limit.
pub const BRUIT_E_TOO_BIG: c_int = -8;
/// No such thing.
pub const BRUIT_E_NOT_FOUND: c_int = -9;
/// Not an address, or it does not resolve.
pub const BRUIT_E_ADDRESS: c_int = -10;
/// The operating system refused; bruit_last_errno() has its number.
pub const BRUIT_E_IO: c_int = -11;
/// A key is missing or wrong.
pub const BRUIT_E_AUTH: c_int = -12;
/// No room, or another thread is at it; try again.
pub const BRUIT_E_BUSY: c_int = -13;
/// The cluster refused this node.
pub const BRUIT_E_REFUSED: c_int = -14;
/// Too few members can be reached.
pub const BRUIT_E_NO_QUORUM: c_int = -15;
/// Stored data is damaged.
pub const BRUIT_E_CORRUPT: c_int = -16;
/// The node has failed and must be freed.
pub const BRUIT_E_FAILED: c_int = -17;
/// A bug in bruit; the node is unusable. The process is not harmed.
pub const BRUIT_E_PANIC: c_int = -18;
/// Nobody listens to that topic there.
pub const BRUIT_E_NO_HANDLER: c_int = -19;
/// The member is dead or has left.
pub const BRUIT_E_UNREACHABLE: c_int = -20;
/// Canceled by the caller.
pub const BRUIT_E_CANCELED: c_int = -21;
/// The other side's handler failed.
pub const BRUIT_E_REMOTE: c_int = -22;
/// The other side's handler did not reply.
pub const BRUIT_E_NO_REPLY: c_int = -23;
/// A configured limit is reached.
pub const BRUIT_E_LIMIT: c_int = -24;

/// One error code, for programs and language bindings that want to list them.
#[repr(C)]
pub struct bruit_err_desc {
    /** sizeof(bruit_err_desc). An element of an array: this struct never grows. */
    pub size: u32,
    /** BRUIT_OK or BRUIT_E_*. */
    pub code: i32,
    /** "E_TIMEOUT" */
    pub name: *const c_char,
    /** What bruit_strerror() says. */
    pub text: *const c_char,
}

/// The meaning of an error code, in English. Never NULL, never freed; "unknown error code" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_strerror(code: c_int) -> *const c_char {
    described(code).map_or(c"unknown error code".as_ptr(), |desc| desc.text)
}

/// The name of an error code: "E_TIMEOUT", "OK". Never NULL, never freed; "E_UNKNOWN" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_err_name(code: c_int) -> *const c_char {
    described(code).map_or(c"E_UNKNOWN".as_ptr(), |desc| desc.name)
}

/// All error codes, BRUIT_OK first. The table is never freed.
///
/// \param count receives the number of elements; required.
/// \return the table, or NULL where `count` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_err_descs(count: *mut usize) -> *const bruit_err_desc {
    // SAFETY: `count` is NULL or valid, as the caller promises.
    guard_ptr(|| unsafe { crate::convert::table(&TABLE.0, count) })
}

/// What went wrong in the last call that failed on this thread, with the detail that the code alone does not tell:
/// what was given and what was expected.
///
/// \return never NULL; "" where nothing has failed. Valid until the next failing call on this thread; calls that
/// succeed leave it alone.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_last_error() -> *const c_char {
    // A thread that is being torn down has no last error any more.
    let text = LAST.try_with(|last| last.borrow().text.as_ref().map(|text| text.as_ptr()));
    text.ok().flatten().unwrap_or(c"".as_ptr())
}

/// The operating system's number (`errno`) behind the last call that failed on this thread, or 0: EADDRINUSE or
/// EACCES?
#[unsafe(no_mangle)]
pub extern "C" fn bruit_last_errno() -> c_int {
    LAST.try_with(|last| last.borrow().errno).unwrap_or(0)
}

/// Runs the body of a call. An error becomes its code and this thread's last error; a panic becomes `E_PANIC`.
pub fn guard(body: impl FnOnce() -> Result<c_int>) -> c_int {
    caught(body).unwrap_or_else(|error| {
        let code = error.code as c_int;
        remember(error);
        code
    })
}

/// `guard` for calls that return a pointer: NULL on failure.
pub fn guard_ptr<T>(body: impl FnOnce() -> Result<*const T>) -> *const T {
    guard_or(std::ptr::null(), body)
}

/// `guard` for calls that return something else than a code.
pub fn guard_or<T>(failed: T, body: impl FnOnce() -> Result<T>) -> T {
    caught(body).unwrap_or_else(|error| {
        remember(error);
        failed
    })
}

fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    let _running = Running::ours();
    // What a panic leaves half-changed belongs to core, which marks its node FAILED.
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        // None on a thread that is being torn down.
        let place = PANICKED_AT.try_with(RefCell::take).unwrap_or_default();
        Err(Error::new(Code::Panic, format!("bug in bruit{place}: {}", panic_text(&*payload))))
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

struct Last {
    /// None: nothing has failed yet.
    text: Option<CString>,
    errno: c_int,
}

/// Whose code a thread is running.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Not known: the application's threads between calls, and core's own.
    Outside,
    /// A call into bruit.
    Inside,
    /// A callback of the application.
    Callback,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { text: None, errno: 0 }) };
    static PLACE: Cell<Place> = const { Cell::new(Place::Outside) };
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn remember(error: Error) {
    let last = Last { text: Some(c_string(&error.text)), errno: error.errno };
    // A thread that is being torn down keeps no last error.
    let _ = LAST.try_with(|place| place.replace(last));
}

/// Until it is dropped, this thread runs somebody's code; for the panic hook.
pub struct Running(Place);

impl Running {
    fn ours() -> Running {
        quiet_panics();
        Running::set(Place::Inside)
    }

    pub fn a_callback() -> Running {
        Running::set(Place::Callback)
    }

    fn set(place: Place) -> Running {
        Running(PLACE.try_with(|cell| cell.replace(place)).unwrap_or(Place::Outside))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = PLACE.try_with(|cell| cell.set(self.0));
    }
}

/// The standard hook prints every panic on the host's stderr. Ours stay silent there (they become an error with their
/// text, or a FATAL event); all others go the way they went before.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if panic_is_ours() {
                let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
                let _ = PANICKED_AT.try_with(|cell| cell.replace(place));
            } else {
                before(info);
            }
        }));
    });
}

fn panic_is_ours() -> bool {
    match PLACE.try_with(Cell::get).unwrap_or(Place::Outside) {
        Place::Inside => true,
        Place::Callback => false,
        Place::Outside => std::thread::current().name().is_some_and(|name| name.starts_with("bruit-")),
    }
}

struct Table(Vec<bruit_err_desc>);

// SAFETY: the pointers lead to text that is never changed or freed.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let desc = |code, name: &str, text: &str| bruit_err_desc {
        size: size_of::<bruit_err_desc>() as u32,
        code,
        name: c_string(name).into_raw(),
        text: c_string(text).into_raw(),
    };
    let ok = desc(BRUIT_OK, "OK", "success");
    let codes = Code::ALL.iter().map(|code| desc(*code as c_int, code.name(), code.describe()));
    Table(std::iter::once(ok).chain(codes).collect())
});

fn described(code: c_int) -> Option<&'static bruit_err_desc> {
    TABLE.0.iter().find(|desc| desc.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text_and_place() {
        assert_eq!(guard(|| panic!("the {} is off", "lid")), BRUIT_E_PANIC);
        let text = last();
        assert!(text.starts_with("bug in bruit at ffi/error.rs:") && text.ends_with(": the lid is off"), "{text}");
        assert!(guard_ptr::<u8>(|| panic!("once more")).is_null());
    }

    #[test]
    fn only_panics_of_ours_are_hushed() {
        assert!(!panic_is_ours());
        guard(|| {
            assert!(panic_is_ours());
            let user_code = Running::a_callback();
            assert!(!panic_is_ours());
            drop(user_code);
            assert!(panic_is_ours());
            Ok(0)
        });
        assert!(!panic_is_ours());
        let ours = std::thread::Builder::new().name("bruit-io".into()).spawn(panic_is_ours).unwrap();
        assert!(ours.join().unwrap());
    }

    #[test]
    fn success_leaves_the_last_error_alone() {
        guard(|| Err(Error::new(Code::NotFound, "a\0b")));
        assert_eq!(guard(|| Ok(3)), 3);
        assert_eq!(last(), "a?b", "NUL cannot be told in C");
    }

    #[test]
    fn every_code_has_its_constant() {
        let constants = [
            BRUIT_E_INVALID,
            BRUIT_E_HANDLE,
            BRUIT_E_STATE,
            BRUIT_E_DEADLOCK,
            BRUIT_E_FORKED,
            BRUIT_E_TIMEOUT,
            BRUIT_E_BUFFER,
            BRUIT_E_TOO_BIG,
            BRUIT_E_NOT_FOUND,
            BRUIT_E_ADDRESS,
            BRUIT_E_IO,
            BRUIT_E_AUTH,
            BRUIT_E_BUSY,
            BRUIT_E_REFUSED,
            BRUIT_E_NO_QUORUM,
            BRUIT_E_CORRUPT,
            BRUIT_E_FAILED,
            BRUIT_E_PANIC,
            BRUIT_E_NO_HANDLER,
            BRUIT_E_UNREACHABLE,
            BRUIT_E_CANCELED,
            BRUIT_E_REMOTE,
            BRUIT_E_NO_REPLY,
            BRUIT_E_LIMIT,
        ];
        let codes: Vec<c_int> = Code::ALL.iter().map(|code| *code as c_int).collect();
        assert_eq!(codes, constants);
        // The names agree, too: the header and the table are two spellings of one list.
        let source = include_str!("error.rs");
        for code in Code::ALL {
            let line = format!("pub const BRUIT_{}: c_int = {};", code.name(), *code as c_int);
            assert!(source.contains(&line), "{line}");
        }
    }

    fn last() -> String {
        // SAFETY: never NULL, and this thread does not fail another call meanwhile.
        unsafe { std::ffi::CStr::from_ptr(bruit_last_error()) }.to_str().unwrap().into()
    }
}
