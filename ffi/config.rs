//! Configuration: options by name, and the few things that are no text.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bruit_core::config::Config;
use bruit_core::error::{Code, Error, Result};
use bruit_core::runtime::Runtime;

use crate::callback::{User, bruit_free_fn};
use crate::convert::{Out, bytes, c_string, invalid, put_text, table, text};
use crate::error::{Running, guard, guard_ptr};
use crate::handle::Slab;
use crate::runtime::{bruit_runtime, runtime_of};

/// bruit_option_desc.kind: any text.
pub const BRUIT_OPTION_TEXT: u32 = 1;
/// "true" or "false".
pub const BRUIT_OPTION_BOOL: u32 = 2;
/// A whole number.
pub const BRUIT_OPTION_COUNT: u32 = 3;
/// A number of bytes: "65536", "64KiB", "1MiB".
pub const BRUIT_OPTION_SIZE: u32 = 4;
/// A time with its unit: "200ms", "1.5s", "2m", "1h".
pub const BRUIT_OPTION_DURATION: u32 = 5;
/// A decimal number: "1.5".
pub const BRUIT_OPTION_RATIO: u32 = 6;
/// One of a few words; see `choices`.
pub const BRUIT_OPTION_CHOICE: u32 = 7;

/// A bit of bruit_option_desc.flags: bruit_node_set() can change it while the node runs.
pub const BRUIT_OPTION_LIVE: u32 = 1;

/// Log levels, as syslog numbers them: something failed.
pub const BRUIT_LEVEL_ERROR: c_int = 3;
/// Something is wrong, and may need attention.
pub const BRUIT_LEVEL_WARNING: c_int = 4;
/// Normal but rare.
pub const BRUIT_LEVEL_NOTICE: c_int = 5;
/// Normal.
pub const BRUIT_LEVEL_INFO: c_int = 6;
/// For finding faults.
pub const BRUIT_LEVEL_DEBUG: c_int = 7;
/// Every frame.
pub const BRUIT_LEVEL_TRACE: c_int = 8;

/// Bytes of a cluster key.
pub const BRUIT_KEY_LEN: usize = 32;

/// How a node shall be. Copied by bruit_node_new(), so it can be changed and used again, and freed at any time.
///
/// A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. May be used by several threads.
pub struct bruit_config;

/// An option. The pointers are never NULL; a text is "" where it does not apply.
#[repr(C)]
pub struct bruit_option_desc {
    /** sizeof(bruit_option_desc). An element of an array: this struct never grows. */
    pub size: u32,
    /** One of BRUIT_OPTION_TEXT, … */
    pub kind: u32,
    /** Bits: BRUIT_OPTION_LIVE. */
    pub flags: u32,
    /** 0. */
    pub reserved: u32,
    /** Its name for bruit_config_set(). */
    pub key: *const c_char,
    /** Unit of its numbers. */
    pub unit: *const c_char,
    /** Default in profile "lan", which is the default profile. */
    pub lan: *const c_char,
    /** Default in profile "wan". */
    pub wan: *const c_char,
    /** Default in profile "local". */
    pub local: *const c_char,
    /** Smallest and largest value. */
    pub bounds: *const c_char,
    /** The words that are allowed, separated by blanks (BRUIT_OPTION_CHOICE). */
    pub choices: *const c_char,
    /** Where the default comes from. */
    pub source: *const c_char,
    /** What it does. */
    pub doc: *const c_char,
    /** Its chapter in the documentation. */
    pub group: *const c_char,
}

/// Hears the log. `target` is the part of bruit that speaks; the texts are valid during the call only.
///
/// Called one message at a time for each node, on a dispatcher thread of bruit's, in bruit_node_dispatch(), or
/// in a call on the thread that made it; never where the protocol would have to wait for it. The same calls are
/// allowed as in a bruit_event_fn. What comes faster than it is heard is dropped, and counted.
pub type bruit_log_fn =
    Option<unsafe extern "C" fn(level: c_int, target: *const c_char, text: *const c_char, user: *mut c_void)>;

/// Makes a configuration with the defaults of profile "lan". See docs/CONFIGURATION.md, or
/// bruit_option_descs(), for the options.
///
/// \param out receives the configuration, to be freed with bruit_config_free().
/// \return BRUIT_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_new(out: *mut *mut bruit_config) -> c_int {
    guard(|| {
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        out.put(publish(Settings::default())?);
        Ok(0)
    })
}

/// Frees a configuration. Nodes that were made from it are not affected.
///
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_config_free(config: *mut bruit_config) -> c_int {
    guard(|| CONFIGS.remove(config.addr()).map(|_| 0))
}

/// Copies a configuration: the log callback is shared and freed with the last of them, descriptors are shared, too.
///
/// \param out receives the copy, to be freed with bruit_config_free().
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_dup(config: *const bruit_config, out: *mut *mut bruit_config) -> c_int {
    guard(|| {
        let copy = settings_of(config)?;
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        out.put(publish(copy)?);
        Ok(0)
    })
}

/// Sets one option: bruit_config_set(config, "probe_interval", "200ms"). On failure nothing is changed.
///
/// \param key see bruit_option_descs().
/// \param value with its unit: "200ms", "1.5s", "64KiB", "true".
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_INVALID: bruit_last_error() says what is expected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_set(
    config: *mut bruit_config,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    change(config, |settings| {
        // SAFETY: NULL or texts, as the caller promises.
        let (key, value) = unsafe { (text("key", key)?, text("value", value)?) };
        settings.config.set(key, value)
    })
}

/// Sets options from a file with lines `key = value`; `#` begins a comment. On failure nothing is changed.
///
/// \return BRUIT_OK; BRUIT_E_IO: it cannot be read; BRUIT_E_TOO_BIG: it is larger than 1 MiB;
///         BRUIT_E_NOT_FOUND, BRUIT_E_INVALID as for bruit_config_set(), bruit_last_error() names the line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_load(config: *mut bruit_config, path: *const c_char) -> c_int {
    change(config, |settings| {
        // SAFETY: NULL or a text, as the caller promises.
        let text = read_text(unsafe { text("path", path) }?)?;
        settings.config.load(&text)
    })
}

/// Reads an option back.
///
/// \param buf receives the value, NUL-terminated. May be NULL where `cap` is 0, to ask for the size.
/// \param len receives the length without the NUL; on BRUIT_E_BUFFER the size that `buf` needs. May be NULL.
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such option; BRUIT_E_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_get(
    config: *const bruit_config,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> c_int {
    guard(|| {
        let settings = settings_of(config)?;
        // SAFETY: NULL or a text, as the caller promises.
        let value = settings.config.get(unsafe { text("key", key) }?)?;
        // SAFETY: NULL or `cap` bytes, NULL or valid, as the caller promises.
        unsafe { put_text(&value, buf, cap, len) }
    })
}

/// All options. The table is never freed.
///
/// \param count receives the number of elements; required.
/// \return the table, or NULL where `count` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_option_descs(count: *mut usize) -> *const bruit_option_desc {
    // SAFETY: NULL or valid, as the caller promises.
    guard_ptr(|| unsafe { table(&OPTIONS.0, count) })
}

/// Adds a member to contact at the start, and again whenever this node is alone.
///
/// \param address "host:port", "10.0.0.7:18946", "[fd00::7]:18946", or without the port for the usual one. A
///         name stands for all of its addresses and is resolved anew at each attempt.
/// \return BRUIT_OK; BRUIT_E_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_add_seed(config: *mut bruit_config, address: *const c_char) -> c_int {
    change(config, |settings| {
        // SAFETY: NULL or a text, as the caller promises.
        settings.config.add_seed(unsafe { text("address", address) }?)
    })
}

/// Adds a cluster key. The first one seals what this node sends, all of them open what it receives. Without a
/// key nothing is encrypted, and only loopback addresses are allowed unless the option "insecure_plaintext" is
/// true.
///
/// \param key BRUIT_KEY_LEN bytes of good randomness.
/// \return BRUIT_OK; BRUIT_E_INVALID for another length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_add_key(config: *mut bruit_config, key: *const c_void, len: usize) -> c_int {
    change(config, |settings| {
        // SAFETY: NULL or `len` bytes, as the caller promises.
        settings.config.add_key(unsafe { bytes("key", key, len) }?)
    })
}

/// Sets a key of the metadata that the node starts with. How much it is in all is looked at by bruit_node_new().
///
/// \param key 1 to 255 bytes of text without control characters and '='.
/// \param value any bytes, copied; NULL deletes the key, whatever `len` is.
/// \return BRUIT_OK; BRUIT_E_INVALID: a malformed key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_config_set_meta(
    config: *mut bruit_config,
    key: *const c_char,
    value: *const c_void,
    len: usize,
) -> c_int {
    change(config, |settings| {
        // SAFETY: NULL or a text, NULL or `len` bytes, as the caller promises.
        let (key, value) = unsafe { (text("key", key)?, meta_value(value, len)?) };
        settings.config.set_meta(key, value)
    })
}

/// Uses sockets that are bound already, instead of binding the option "bind": for socket activation, dropped
/// privileges, hot restarts. The descriptors are duplicated; yours stay yours, to be closed when you like. The
/// duplicates keep the port bound until the configuration, its copies, and nodes of it that were not started are
/// freed.
///
/// \param udp_fd a bound UDP socket, or -1 for none.
/// \param tcp_fd a listening TCP socket on the same port, or -1 for none.
/// \return BRUIT_OK; BRUIT_E_INVALID: not a socket of that kind.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_config_adopt_sockets(config: *mut bruit_config, udp_fd: c_int, tcp_fd: c_int) -> c_int {
    change(config, |settings| {
        let udp = adopt("udp_fd", udp_fd, libc::SOCK_DGRAM)?;
        let tcp = adopt("tcp_fd", tcp_fd, libc::SOCK_STREAM)?;
        (settings.udp, settings.tcp) = (udp, tcp);
        Ok(())
    })
}

/// Makes nodes of this configuration share the threads of a runtime. Without one, each node has its own.
///
/// \param runtime kept alive by the configuration and its nodes; bruit_runtime_free() may be called at any time.
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_config_set_runtime(config: *mut bruit_config, runtime: *mut bruit_runtime) -> c_int {
    change(config, |settings| {
        settings.runtime = Some(Runtime::clone(&*runtime_of(runtime)?));
        Ok(())
    })
}

/// Hears the log of nodes of this configuration. Without it they are silent: bruit never writes to stdout or
/// stderr.
///
/// \param max_level the most detailed level wanted, BRUIT_LEVEL_*: 0 to 8.
/// \param callback may be NULL: then the log is silent again. Replaces the one that was set before.
/// \param user handed to the callback; may be NULL.
/// \param free_fn frees `user` once this configuration, its copies and all of its nodes are gone or have
///         another; may be NULL.
/// \return BRUIT_OK; BRUIT_E_INVALID: the level is out of range.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_config_on_log(
    config: *mut bruit_config,
    max_level: c_int,
    callback: bruit_log_fn,
    user: *mut c_void,
    free_fn: bruit_free_fn,
) -> c_int {
    guard(|| {
        // What was there before, and data without a callback, are freed after the lock is released: a free_fn may
        // call us.
        let mut before = None;
        User::offer(user, free_fn, |user| {
            let log = callback.map(|call| Arc::new(Log { max_level, call, user }));
            edit(config, |settings| {
                if !(0..=BRUIT_LEVEL_TRACE).contains(&max_level) {
                    return Err(invalid(format!("max_level is {max_level}: expected 0 to {BRUIT_LEVEL_TRACE}")));
                }
                before = std::mem::replace(&mut settings.log, log);
                Ok(())
            })
        })?;
        Ok(0)
    })
}

/// Everything that a node is made from.
#[derive(Clone, Default)]
pub struct Settings {
    pub config: Config,
    pub udp: Option<Arc<OwnedFd>>,
    pub tcp: Option<Arc<OwnedFd>>,
    pub runtime: Option<Runtime>,
    pub log: Option<Arc<Log>>,
}

pub struct Log {
    pub max_level: c_int,
    call: unsafe extern "C" fn(c_int, *const c_char, *const c_char, *mut c_void),
    user: User,
}

impl Log {
    pub fn write(&self, level: c_int, target: &str, text: &str) {
        if level <= self.max_level {
            let (target, text) = (c_string(target), c_string(text));
            let _theirs = Running::a_callback();
            // SAFETY: the caller vouches for the callback and its data, which lives as long as `user`.
            unsafe { (self.call)(level, target.as_ptr(), text.as_ptr(), self.user.data()) };
        }
    }
}

static CONFIGS: Slab<Mutex<Settings>> = Slab::new(1, "config");

fn publish(settings: Settings) -> Result<*mut bruit_config> {
    CONFIGS.insert(Arc::new(Mutex::new(settings))).map(std::ptr::without_provenance_mut)
}

/// A copy, so that no lock is held while it is used.
pub fn settings_of(config: *const bruit_config) -> Result<Settings> {
    let config = CONFIGS.get(config.addr())?;
    // Changes are made to a copy and put in place whole, so a panic leaves nothing half done.
    let settings = config.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(settings)
}

/// A call that is an edit.
fn change(config: *mut bruit_config, f: impl FnOnce(&mut Settings) -> Result<()>) -> c_int {
    guard(|| edit(config, f).map(|()| 0))
}

/// Applies `f` to the settings, or nothing of it where it fails.
fn edit(config: *mut bruit_config, f: impl FnOnce(&mut Settings) -> Result<()>) -> Result<()> {
    let config = CONFIGS.get(config.addr())?;
    let mut settings = config.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = settings.clone();
    f(&mut changed)?;
    *settings = changed;
    Ok(())
}

/// NULL deletes, whatever the length: a value that is not there has none.
///
/// # Safety
/// `value` is NULL or has `len` bytes, which stay as they are for `'a`.
pub unsafe fn meta_value<'a>(value: *const c_void, len: usize) -> Result<Option<&'a [u8]>> {
    if value.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { bytes("value", value, len) }.map(Some)
}

/// Largest file of options; nobody writes one that long.
const FILE_MAX: u64 = 1 << 20;

fn read_text(path: &str) -> Result<String> {
    let failed = |e: io::Error| Error::io(path, &e);
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(Error::new(Code::TooBig, format!("{path} is larger than {FILE_MAX} bytes")));
    }
    String::from_utf8(text).map_err(|e| invalid(format!("{path} is not UTF-8: {e}")))
}

fn adopt(what: &str, fd: RawFd, kind: c_int) -> Result<Option<Arc<OwnedFd>>> {
    if fd == -1 {
        return Ok(None);
    }
    if fd < 0 {
        return Err(invalid(format!("{what} is {fd}: expected a descriptor, or -1 for none")));
    }
    let refused = |e: io::Error| Error { errno: e.raw_os_error().unwrap_or(0), ..invalid(format!("{what} {fd}: {e}")) };
    let mut found: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: `found` and `len` are valid and fit each other.
    let rc = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut found).cast(), &raw mut len) };
    if rc != 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    if found != kind {
        let expected = if kind == libc::SOCK_DGRAM { "a UDP" } else { "a TCP" };
        return Err(invalid(format!("{what} {fd} is not {expected} socket")));
    }
    // SAFETY: getsockopt found a socket there, and the caller keeps it open during the call.
    let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map_err(refused)?;
    Ok(Some(Arc::new(own)))
}

struct Options(Vec<bruit_option_desc>);

// SAFETY: the pointers lead to text that is never changed or freed.
unsafe impl Send for Options {}
// SAFETY: as above.
unsafe impl Sync for Options {}

static OPTIONS: LazyLock<Options> = LazyLock::new(|| {
    let keep = |text: &str| c_string(text).into_raw().cast_const();
    let descs = Config::descs().iter().map(|desc| bruit_option_desc {
        size: size_of::<bruit_option_desc>() as u32,
        kind: kind(desc.kind),
        flags: if desc.live { BRUIT_OPTION_LIVE } else { 0 },
        reserved: 0,
        key: keep(desc.key),
        unit: keep(desc.unit),
        lan: keep(desc.lan),
        wan: keep(desc.wan),
        local: keep(desc.local),
        bounds: keep(desc.bounds),
        choices: keep(&desc.choices.join(" ")),
        source: keep(desc.source),
        doc: keep(desc.doc),
        group: keep(desc.group),
    });
    Options(descs.collect())
});

fn kind(kind: bruit_core::config::OptionKind) -> u32 {
    use bruit_core::config::OptionKind::*;
    match kind {
        Text => BRUIT_OPTION_TEXT,
        Bool => BRUIT_OPTION_BOOL,
        Count => BRUIT_OPTION_COUNT,
        Size => BRUIT_OPTION_SIZE,
        Duration => BRUIT_OPTION_DURATION,
        Ratio => BRUIT_OPTION_RATIO,
        Choice => BRUIT_OPTION_CHOICE,
    }
}
