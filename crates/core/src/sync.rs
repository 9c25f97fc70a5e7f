//! The only file that names atomics: std's, or loom's when the protocol is being modelled.

#[cfg(not(ledgerline_loom))]
pub(crate) use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(ledgerline_loom)]
pub(crate) use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(ledgerline_loom)]
pub(crate) use std::sync::PoisonError;

/// Tells the processor, or the model's scheduler, that another thread must move first.
#[cfg(not(ledgerline_loom))]
pub(crate) use std::hint::spin_loop;

#[cfg(ledgerline_loom)]
pub(crate) use loom::thread::yield_now as spin_loop;

/// Of no model: a word that the kernel writes, when it makes another process.
pub(crate) use std::sync::{OnceLock, atomic::AtomicU64 as KernelWord};
