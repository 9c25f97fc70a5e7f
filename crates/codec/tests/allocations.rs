//! Encoding into a buffer that has room doesn't allocate.

#![expect(unsafe_code, reason = "an allocator that counts can't be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ledgerline_codec::{
    Category, Envelope, Event, EventData, Identity, Json, Outcome, Timestamp, Uuid, encode,
};

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

#[test]
fn encoding_into_room_does_not_allocate() {
    let payload =
        std::collections::BTreeMap::from([("phase", "Classifying"), ("odd", "\"\n\u{e9}")]);
    let json = Json(r#"{"phase":"Classifying","levels":[[1.5e3,"\u00e9"]]}"#);
    let envelope = Envelope::new(&json)
        .with_service("gateway")
        .with_operation("received")
        .with_status("ok")
        .with_source_payload(&payload);
    let identity = Identity {
        event_id: Uuid::max(),
        producer: "gateway-0",
        producer_seq: 7,
        now: Timestamp::EPOCH,
    };
    let mut out = Vec::with_capacity(16 * 1024);
    let sources: [&dyn EventData; 3] = [&json, &payload, &envelope];
    for data in sources {
        let address = "2001:db8::192.0.2.1".parse().unwrap();
        let before = ALLOCATIONS.get();
        let event = Event::new("a.b.c", Category::Other("own"), Outcome::Success)
            .with_correlation_id("rr-1")
            .with_data(data)
            .with_id(Uuid::max())
            .with_actor_ip(address)
            .with_resource_id("with \"escapes\" and \u{10ffff}")
            .with_error_message("line\nline")
            .with_duration_ms(12)
            .with_parent_event_id(Uuid::nil())
            .with_parent_event_date(Timestamp::EPOCH);
        encode(&event, &identity, &mut out).unwrap();
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
    let before = ALLOCATIONS.get();
    drop(out.clone());
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter doesn't count");
}
