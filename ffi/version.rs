//! Which library is this?

use std::ffi::c_char;

/// Counts incompatible changes of this interface; part of the SONAME. While it is 0, a minor version may break it.
pub const BRUIT_ABI_VERSION: u32 = 0;

/// The version of the library that is loaded: "0.1.0". Never NULL, never freed. BRUIT_VERSION is that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The ABI version of the library that is loaded; differs from BRUIT_ABI_VERSION where the program was built
/// for another one.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_abi_version() -> u32 {
    BRUIT_ABI_VERSION
}
