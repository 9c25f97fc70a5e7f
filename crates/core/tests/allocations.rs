//! Accepting and refusing a record doesn't allocate.

#![expect(unsafe_code, reason = "an allocator that counts can't be written without")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use ledgerline_core::{Anonymous, Bell, Lanes, Refusal};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came; the count is a plain cell
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `System`, as all of ours do.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Deaf;

impl Bell for Deaf {
    fn ring(&self) {}
}

#[test]
fn recording_does_not_allocate_from_an_empty_lane_to_a_full_and_a_closed_engine() {
    let (lanes, mut driver) = Lanes::new(Box::new(Anonymous::new(3).unwrap()), 1, Box::new(Deaf));
    let before = ALLOCATIONS.get();
    let accepted = (0..).take_while(|_| lanes.record(0, &[1; 704], 0).is_ok()).count() as u64;
    let (_, refused) = (lanes.next_producer_seq(0), lanes.record(0, &[1; 704], 0));
    driver.close();
    let closed = lanes.record(0, &[1; 704], 0);
    let accounts = lanes.accounts();
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!((refused, closed), (Err(Refusal::Full), Err(Refusal::Closed)));
    assert_eq!(accounts.accepted, accepted);
    assert!(accepted > 2_000, "three blocks were filled");
    assert_eq!(allocations, 0);

    let before = ALLOCATIONS.get();
    drop(lanes.seq_targets());
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter doesn't count");
}
