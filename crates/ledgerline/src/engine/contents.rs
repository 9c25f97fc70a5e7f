//! What delivery may ask of a record's bytes.

use ledgerline_codec::{Field, Timestamp, event_id_text, field_text};
use ledgerline_core::{Driver, Record};

use crate::clock::wall_clock;
use crate::delivery::{Batch, Contents, IdCheck, Ids};
use crate::sink::http::ids::{Listed, listed, lists, names};

impl Contents for Driver {
    fn event_type<T>(&self, record: &Record, read: impl FnOnce(&str) -> T) -> T {
        let loan = self.lend(record.block, record.index, 1);
        read(field_text(loan.as_ref(), Field::EventType).unwrap_or_default())
    }

    fn timestamp_us(&self, record: &Record) -> i64 {
        let loan = self.lend(record.block, record.index, 1);
        let text = field_text(loan.as_ref(), Field::EventTimestamp);
        // One without is as young as can be: it is not old.
        text.and_then(Timestamp::parse_rfc3339).map_or(i64::MAX, Timestamp::micros)
    }

    fn now_us(&self) -> i64 {
        wall_clock().micros()
    }
}

/// Whose ids the body of a 201 lists, as far as `check` says.
pub(super) fn ids_in(driver: &Driver, batch: &Batch, body: &[u8], check: IdCheck) -> Ids {
    let is_ours = match check {
        IdCheck::Nothing => return Ids::Unchecked,
        IdCheck::First => {
            let Record { block, index, .. } = batch.records[0];
            let loan = driver.lend(block, index, 1);
            names(body, event_id_text(loan.as_ref()).unwrap_or_default())
        }
        IdCheck::All => {
            let records = batch.records.iter();
            let loans: Vec<_> =
                records.map(|record| driver.lend(record.block, record.index, 1)).collect();
            lists(body, loans.iter().map(|loan| event_id_text(loan.as_ref()).unwrap_or_default()))
        }
    };
    match is_ours {
        true => Ids::Ours,
        false if matches!(listed(body, batch.records.len()), Listed::Ids { .. }) => Ids::Others,
        false => Ids::Absent,
    }
}
