//! The process's allocator: mimalloc, and a count of allocations for each thread.
//!
//! Invariant: the count of a thread is the number of times that it asked for memory, growing a
//! piece included. Limit: the count costs each allocation an increment of a thread-local.
#![expect(unsafe_code, reason = "an allocator's contract is unsafe by definition")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

/// mimalloc behind a counter.
pub(crate) struct Counting;

/// How many times the calling thread has asked for memory.
pub(crate) fn of_this_thread() -> u64 {
    COUNT.with(Cell::get)
}

fn count() {
    COUNT.with(|count| count.set(count.get().wrapping_add(1)));
}

thread_local! {
    // Constant and without a destructor: reading it never allocates, and works while the thread
    // ends.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every method hands its arguments to mimalloc, which keeps the contract; counting touches
// no memory but the counter and doesn't unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the methods here, all of which take it from mimalloc.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from the methods here; the promises about `layout` and `size` are
        // passed on as they are.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_allocation_and_each_growth_is_counted_on_its_own_thread() {
        let before = of_this_thread();
        let mut bytes = std::hint::black_box(Vec::<u8>::with_capacity(10));
        assert_eq!(of_this_thread(), before + 1);
        bytes.reserve_exact(1_000);
        assert_eq!(of_this_thread(), before + 2);
        drop(bytes);
        assert_eq!(of_this_thread(), before + 2);
    }
}
