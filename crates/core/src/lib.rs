//! Where accepted events live until they are settled: lanes, blocks, pool, timer wheel, accounts.
//!
//! Bytes only: no JSON, no HTTP, no files, no runtime. Producers use [`Lanes`], one thread alone
//! uses [`Driver`]. A record is reserved, copied and committed in a block of its lane; from then on
//! it is *accepted*, and the driver owes it exactly one [`Outcome`].
//!
//! # The protocol
//! One atomic word per lane names the lane's block and its generation. One atomic word per block
//! holds generation, seal, count and bytes used; reserving is one compare-and-swap of it. One
//! atomic word per record says where the record lies, and that it is complete. A producer that
//! finds the block sealed installs the next one itself, so nobody ever waits for the thread that
//! sealed. The driver takes committed prefixes where they lie and is the only one to settle and to
//! recycle.
//!
//! # Invariants
//! - **I1** bytes `[o, o+n)` of a block in generation g belong to exactly one successful
//!   compare-and-swap of its state in g, made while it was not sealed.
//! - **I2** after the seal, count and used are final for g; the next block of the lane starts at
//!   `base_seq + count`: sequences have neither gap nor overlap.
//! - **I3** lane words name a (block, generation) at most once, ever; only the driver bumps
//!   generations.
//! - **I4** the driver moves the lane word off (b, g) before it bumps b's generation.
//! - **I5** nothing is read that is not committed; no reference ever spans uncommitted bytes.
//! - **I6** a block is recycled only when every index word up to count is committed and every
//!   record settled, so no writer can be inside it.
//! - **I7** index words are zero before the generation is bumped.
//! - **I8** sealing happens only when a record doesn't fit, at close, and to reclaim an idle block.
//!   Bytes, index and the age that an index word can hold are what a record must fit.
//! - **I9** no path of [`Lanes::record`] waits for another thread: a failed compare-and-swap means
//!   that another made progress. One exception, once per block and a few instructions long: a
//!   thread stopped inside a queue's push or pop holds up the next one at the same slot.
//! - **I10** while the driver is parked, every record is taken, or a producer that is still inside
//!   [`Lanes::record`] will ring the bell once it goes on.
//! - **I11** a record is accepted if and only if it is reserved in a block whose final count covers
//!   it.
//! - **I12** a generation wraps after 2^23 recycles of one block. A producer stopped for that long
//!   between its load and its compare-and-swap, meeting equal count and used, would be misled; at
//!   600 recycles/s of one block that is 3.9 hours. Known, and not handled.
//!
//! The models in `model.rs` hold these against all interleavings of small cases, with loom.

mod accounts;
mod backing;
mod block;
mod driver;
mod lanes;
mod pool;
mod process;
mod receipt;
mod sleepers;
mod standing;
mod sync;
mod wheel;
mod word;

#[cfg(all(test, ledgerline_loom))]
mod model;

pub use accounts::{Accounts, Dropped, Outcome, Refused};
pub use backing::{Anonymous, Backing};
pub use block::{BLOCK_BYTES, Block, RECORDS_PER_BLOCK};
pub use driver::{Driver, Imbalance, Loan, REBUILDS_MAX, Record, Waiting};
pub use lanes::{Bell, Lanes, RECORD_BYTES_MAX, Refusal, SeqTargets};
pub use process::Process;
pub use receipt::Receipt;
pub use sleepers::{Sleeper, Sleepers};
pub use standing::Standing;
pub use wheel::{TimerId, Wheel};
