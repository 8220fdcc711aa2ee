//! The part of the zlib API that flate2 calls, under the name `libz-ng-sys`, done by `libz-rs-sys` (zlib in Rust).
//!
//! pingora asks flate2 for zlib-ng, whose build needs cmake; this program promises to build with Rust and a C compiler.
//! The two declare the same C structure with different pointer types, so each function below only casts the pointer.
#![no_std]
#![allow(non_camel_case_types, non_snake_case, clippy::missing_safety_doc, reason = "the names and contracts of zlib.h")]

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

pub use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_FULL_FLUSH, Z_MEM_ERROR,
    Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END, Z_STREAM_ERROR, Z_SYNC_FLUSH, zlibVersion,
};

pub type uInt = c_uint;
pub type uLong = c_ulong;
pub type alloc_func = unsafe extern "C" fn(*mut c_void, uInt, uInt) -> *mut c_void;
pub type free_func = unsafe extern "C" fn(*mut c_void, *mut c_void);
pub enum internal_state {}

/// `z_stream` of zlib.h: field for field the layout of `libz_rs_sys::z_stream`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct z_stream {
    pub next_in: *mut u8,
    pub avail_in: uInt,
    pub total_in: uLong,
    pub next_out: *mut u8,
    pub avail_out: uInt,
    pub total_out: uLong,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: alloc_func,
    pub zfree: free_func,
    pub opaque: *mut c_void,
    pub data_type: c_int,
    pub adler: uLong,
    pub reserved: uLong,
}

const _: () = assert!(size_of::<z_stream>() == size_of::<libz_rs_sys::z_stream>());
const _: () = assert!(align_of::<z_stream>() == align_of::<libz_rs_sys::z_stream>());

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        pub unsafe extern "C" fn $name(stream: *mut z_stream $(, $argument: $kind)*) -> c_int {
            // SAFETY: the caller keeps zlib.h's contract, and the two structures have one layout.
            unsafe { libz_rs_sys::$name(stream.cast() $(, $argument)*) }
        }
    )*};
}

forward! {
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const u8, length: uInt);
    deflateInit2_(level: c_int, method: c_int, bits: c_int, memory: c_int, strategy: c_int, version: *const c_char, size: c_int);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset2(bits: c_int);
    inflateSetDictionary(dictionary: *const u8, length: uInt);
    inflateInit2_(bits: c_int, version: *const c_char, size: c_int);
}
