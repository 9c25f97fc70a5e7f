//! What delivery has found out about events, said in the log: once for each change.

use std::collections::HashMap;
use std::sync::Arc;

use ledgerline_codec::event_id_text;
use ledgerline_core::Driver;

use super::rate_limited_log::RateLimitedLog;
use crate::delivery::Notice;
use crate::loss::ServerReason;

#[derive(Debug)]
pub(super) struct Notices {
    /// By event type, those of which something was said lately, or is to be said.
    types: HashMap<Arc<str>, TypeState>,
    parked: RateLimitedLog<()>,
}

#[derive(Debug, Default)]
struct TypeState {
    is_apart: bool,
    /// As the log has it.
    was_apart: bool,
    next_ms: u64,
    reason: Option<Arc<ServerReason>>,
}

impl Notices {
    pub(super) fn new() -> Self {
        Self {
            types: HashMap::new(),
            parked: RateLimitedLog::new("an audit event is held alone, others are stored"),
        }
    }

    pub(super) fn note(&mut self, notice: Notice, driver: &Driver, now_ms: u64) {
        match notice {
            Notice::SetApart { event_type, reason } => {
                let state = self.types.entry(event_type).or_default();
                (state.is_apart, state.reason) = (true, reason);
            }
            Notice::Taken { event_type } => {
                if let Some(state) = self.types.get_mut(&event_type) {
                    state.is_apart = false;
                }
            }
            Notice::Parked { record, reason } => {
                let loan = driver.lend(record.block, record.index, 1);
                let id = event_id_text(loan.as_ref()).map(String::from_utf8_lossy);
                let (id, why) = (id.unwrap_or_default(), words(reason.as_deref()));
                self.parked.warn(now_ms, (), &format_args!("event {id}, {why}"));
            }
        }
    }

    /// Says what has changed. To be called at least once a second.
    pub(super) fn tell(&mut self, now_ms: u64) {
        if self.types.is_empty() {
            return;
        }
        for (event_type, state) in &mut self.types {
            if state.is_apart == state.was_apart || now_ms < state.next_ms {
                continue;
            }
            (state.was_apart, state.next_ms) = (state.is_apart, now_ms + TYPE_INTERVAL_MS);
            if state.is_apart {
                let why = words(state.reason.as_deref());
                tracing::warn!(
                    %event_type,
                    why,
                    "audit events of a type are set apart: DataStorage refuses them"
                );
            } else {
                tracing::info!(%event_type, "audit events of a type are no longer set apart");
            }
        }
        self.types.retain(|_, state| state.is_apart || now_ms < state.next_ms);
    }
}

fn words(reason: Option<&ServerReason>) -> String {
    reason.map_or_else(|| "no answer".to_owned(), ToString::to_string)
}

/// Between two lines about a type.
const TYPE_INTERVAL_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_changes_often_has_a_line_a_minute_and_its_last_state_is_said() {
        let mut notices = Notices::new();
        let event_type: Arc<str> = "order.placed".into();
        let mut lines = 0;
        let mut said = |notices: &mut Notices, now_ms| {
            let before = notices.types.get("order.placed").map(|state| state.was_apart);
            notices.tell(now_ms);
            let after = notices.types.get("order.placed").map(|state| state.was_apart);
            lines += u32::from(after.is_some() && before != after);
            lines
        };
        for now_ms in (0..120_000).step_by(1_000) {
            let state = notices.types.entry(Arc::clone(&event_type)).or_default();
            state.is_apart = now_ms % 2_000 == 0;
            said(&mut notices, now_ms);
        }
        assert_eq!(said(&mut notices, 120_000), 2, "set apart at first, and no longer at last");
        said(&mut notices, 200_000);
        assert!(notices.types.is_empty());
    }
}
