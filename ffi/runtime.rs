//! Threads that several nodes share.

use std::ffi::c_int;
use std::sync::Arc;

use bruit_core::error::Result;
use bruit_core::runtime::Runtime;

use crate::convert::Out;
use crate::error::guard;
use crate::handle::Slab;

/// Threads that nodes can share: many nodes in one process then need two threads instead of two each. See
/// bruit_config_set_runtime().
///
/// A token, not an address: NULL, a freed one and garbage are BRUIT_E_HANDLE. May be used by several threads.
pub struct bruit_runtime;

/// Makes a runtime. Its threads start with its first node.
///
/// \param out receives the runtime, to be freed with bruit_runtime_free().
/// \return BRUIT_OK; BRUIT_E_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_runtime_new(out: *mut *mut bruit_runtime) -> c_int {
    guard(|| {
        // SAFETY: NULL or valid, as the caller promises.
        let out = unsafe { Out::new("out", out) }?;
        let token = RUNTIMES.insert(Arc::new(Runtime::new()?))?;
        out.put(std::ptr::without_provenance_mut(token));
        Ok(0)
    })
}

/// Gives a runtime up. Its threads end when its nodes, and the configurations that name it, are gone as well;
/// this does not wait for them.
///
/// \return BRUIT_OK; BRUIT_E_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn bruit_runtime_free(runtime: *mut bruit_runtime) -> c_int {
    guard(|| RUNTIMES.remove(runtime.addr()).map(|_| 0))
}

static RUNTIMES: Slab<Runtime> = Slab::new(2, "runtime");

pub fn runtime_of(runtime: *const bruit_runtime) -> Result<Arc<Runtime>> {
    RUNTIMES.get(runtime.addr())
}
