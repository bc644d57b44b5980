//! Between C's pointers and Rust's types: every argument is checked here, once.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::slice;
use std::str;
use std::time::Duration;

use bruit_core::error::{Code, Error, Result};
use bruit_core::runtime::Wait;

pub fn invalid(text: impl Into<String>) -> Error {
    Error::new(Code::Invalid, text)
}

/// A NUL-terminated UTF-8 text; required.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and stays as it is for `'a`.
pub unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(invalid(format!("{what} is NULL")));
    }
    // SAFETY: not NULL, the rest is the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|e| invalid(format!("{what} is not UTF-8: {e}")))
}

/// `count` texts. NULL is fine where there are none.
///
/// # Safety
/// `first` is NULL or leads to `count` texts as `text` wants them.
pub unsafe fn texts<'a>(what: &str, first: *const *const c_char, count: usize) -> Result<Vec<&'a str>> {
    // SAFETY: as promised by the caller.
    unsafe { array(what, first, count)?.iter().map(|&one| text(what, one)).collect() }
}

/// Any bytes. NULL is fine where there are none.
///
/// # Safety
/// `data` is NULL or has `len` bytes, which stay as they are for `'a`.
pub unsafe fn bytes<'a>(what: &str, data: *const c_void, len: usize) -> Result<&'a [u8]> {
    // SAFETY: as promised by the caller.
    unsafe { array(what, data.cast::<u8>(), len) }
}

/// `count` elements. NULL is fine where there are none.
///
/// # Safety
/// `first` is NULL or leads to `count` elements, which stay as they are for `'a`.
pub unsafe fn array<'a, T>(what: &str, first: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(invalid(format!("{what} is NULL, with a length of {count}")));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(invalid(format!("{what} has a length of {count}: more than memory can hold")));
    }
    // SAFETY: not NULL and within bounds; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(first, count) })
}

/// Checks a required place for a result. It is written by `Out::put`, at the end, when nothing can fail any more.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `place` is NULL or valid for a write until `put`.
    pub unsafe fn new(what: &str, place: *mut T) -> Result<Out<T>> {
        if place.is_null() { Err(invalid(format!("{what} is NULL"))) } else { Ok(Out(place)) }
    }

    /// A place that may be NULL: then the caller does not want to know.
    ///
    /// # Safety
    /// As for `new`.
    pub unsafe fn optional(place: *mut T) -> Out<T> {
        Out(place)
    }

    pub fn put(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: promised where this was made.
            unsafe { self.0.write(value) };
        }
    }
}

/// Copies `text` and a NUL to `buf`. `len` receives the length without the NUL; with `E_BUFFER`, the size that
/// `buf` needs.
///
/// # Safety `buf` is NULL or has `cap` bytes; `len` is NULL or valid.
pub unsafe fn put_text(text: &str, buf: *mut c_char, cap: usize, len: *mut usize) -> Result<c_int> {
    if buf.is_null() && cap > 0 {
        return Err(invalid(format!("buf is NULL, with a capacity of {cap}")));
    }
    let needed = text.len() + 1;
    // SAFETY: promised by the caller.
    let len = unsafe { Out::optional(len) };
    if cap < needed {
        len.put(needed);
        return Err(Error::new(Code::Buffer, format!("{needed} bytes are needed, the buffer has {cap}")));
    }
    // SAFETY: `buf` has room for `needed` bytes, and a text of ours is not in the caller's buffer.
    unsafe {
        buf.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        buf.add(text.len()).write(0);
    }
    len.put(text.len());
    Ok(0)
}

/// A static table and its length.
///
/// # Safety
/// `count` is NULL or valid.
pub unsafe fn table<T>(table: &'static [T], count: *mut usize) -> Result<*const T> {
    // SAFETY: promised by the caller.
    unsafe { Out::new("count", count) }?.put(table.len());
    Ok(table.as_ptr())
}

/// Of a struct that the caller fills: it says how large it is.
pub fn has_size<T>(size: u32, name: &str) -> Result<()> {
    if (size as usize) < size_of::<T>() {
        return Err(invalid(format!("size is {size}: expected sizeof({name})")));
    }
    Ok(())
}

/// 0 = begin and return at once, -1 = for ever.
pub fn wait(timeout_ms: c_int) -> Result<Wait> {
    match timeout_ms {
        0 => Ok(Wait::Now),
        -1 => Ok(Wait::Forever),
        ms => match u64::try_from(ms) {
            Ok(ms) => Ok(Wait::For(Duration::from_millis(ms))),
            Err(_) => Err(invalid(format!("timeout_ms is {ms}: expected 0, a positive number, or -1 for ever"))),
        },
    }
}

/// A count as a return value.
pub fn count(n: usize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// For C. A NUL inside, which only a peer could have sent, becomes a question mark.
pub fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| CString::new(text.replace('\0', "?")).expect("no NUL is left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_buffer_is_told_its_size_and_left_alone() {
        let mut buf = [7u8; 4];
        let mut len = 99;
        // SAFETY: `buf` has 4 bytes.
        let put = |text: &str, cap, len: &mut usize, buf: &mut [u8; 4]| unsafe {
            put_text(text, buf.as_mut_ptr().cast(), cap, len)
        };
        assert_eq!(put("abcd", 4, &mut len, &mut buf).unwrap_err().code, Code::Buffer);
        assert_eq!((len, buf), (5, [7; 4]));
        put("abc", 4, &mut len, &mut buf).unwrap();
        assert_eq!((len, &buf), (3, b"abc\0"));
    }

    #[test]
    fn timeouts_below_minus_one_are_refused() {
        assert!(matches!(wait(0), Ok(Wait::Now)));
        assert!(matches!(wait(-1), Ok(Wait::Forever)));
        assert!(matches!(wait(20), Ok(Wait::For(d)) if d == Duration::from_millis(20)));
        assert_eq!(wait(-2).err().unwrap().code, Code::Invalid);
    }
}
