//! What the engine must reach in front of hostile servers, by a ledger of the servers' own.
//!
//! A scenario drives an engine through its public interface with paced events of six types,
//! against a [`Fleet`], and gives a [`Bar`]: what was measured, and whether it is enough. Each is a
//! function of its length: tests run it for seconds, and `scripts/bars` for as long as it says.
//! What the engine counts is believed nowhere: delivered events are compared with those that the
//! servers stored, lateness is the time from `record` to a server's storage.

mod bar;
mod fleet;
mod ledger;
mod load;
mod trial;

pub mod answers;
pub mod fleets;
pub mod order;
pub mod types;

pub use self::bar::{Bar, Check, assert_all_met};
pub use self::fleet::{Answer, Backend, Balance, Batch, Content, End, Fleet};
pub use self::ledger::{Books, Entry, Item, Ledger, Storing};
pub use self::load::{EVENT_TYPES, KINDS, Key, Load, RARE, Recorded, SIX, is_bad, kind_of};
pub use self::trial::{Lateness, Length, Measured, Trial};
