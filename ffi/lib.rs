//! The C interface of bruit. Its documentation is `include/bruit.h`, which is made from these files: so comments on
//! exported items are written for readers of C.
//!
//! Each function is the same four steps: check the arguments (`convert`), look up handles (`handle`), call core,
//! report (`error`). No protocol and no policy lives here.

#![allow(non_camel_case_types, reason = "C names")]
#![allow(clippy::missing_safety_doc, reason = "what C callers have to keep to is in the text of each function")]

mod convert;
mod handle;

// In the order of the header; the blank lines keep them from being sorted.
mod version;

mod error;

mod callback;

mod config;

mod runtime;

mod node;

mod event;

mod message;

mod query;

mod stream;

mod members;

mod stats;

pub use {
    callback::*, config::*, error::*, event::*, members::*, message::*, node::*, query::*, runtime::*, stats::*,
    stream::*, version::*,
};
