//! What connections tell: bytes written, answers, failures.

use std::sync::Arc;

use ledgerline_transport::{Answer, ConnectionEvent, Failure, What};

use super::contents::ids_in;
use super::{Engine, ready, redelivery};
use crate::delivery::{BatchId, Ended, IdCheck, Ids};
use crate::sink::http::verdict::{Verdict, judge, judge_failure, reason};

impl Engine {
    pub(super) fn on_connection(&mut self, event: ConnectionEvent) {
        let now_ms = self.clock.now_ms();
        if event.slot == ready::PROBE_SLOT {
            return self.on_probe(&event.what, now_ms);
        }
        if event.slot == redelivery::REDELIVERY_SLOT {
            return self.on_redelivery(&event.what, now_ms);
        }
        let (slot, epoch) = (event.slot % self.connections_max, event.slot / self.connections_max);
        let line = &mut self.lines_out[slot];
        if epoch != line.epoch {
            return; // Of a connection that was left because its answers can't be trusted.
        }
        let is_fresh = event.connection > 0 && line.socket != event.connection;
        line.socket = event.connection.max(line.socket);
        let batch = event.request_id;
        match event.what {
            What::FirstByte(at) => {
                self.delivery.first_byte(batch, is_fresh, self.clock.ms_at(at));
            }
            What::Answered(answer) => self.on_answer(batch, &answer, now_ms),
            What::Failed(failure) => self.on_failure(batch, &failure, now_ms),
        }
    }

    fn on_answer(&mut self, id: BatchId, answer: &Answer, now_ms: u64) {
        let Some(batch) = self.delivery.batch(id) else { return };
        let verdict = judge(answer, batch.records.len());
        self.lines.written(batch, answer.status, now_ms);
        let check = self.delivery.id_check(id);
        let ids = match verdict {
            Verdict::Stored if check != IdCheck::Nothing => {
                ids_in(&self.driver, batch, &answer.body, check)
            }
            _ => Ids::Unchecked,
        };
        let reason = (!verdict.is_success()).then(|| Arc::new(reason(answer)));
        match (&reason, verdict) {
            (None, _) => self.snapshot.size_limit.stored(batch.records.len()),
            (Some(_), Verdict::TooBig { .. }) if batch.records.len() > 1 => {
                self.snapshot.size_limit.refused(now_ms); // It is learned.
            }
            (Some(reason), _) => self.log_answer(reason, now_ms),
        }
        if verdict == Verdict::Unauthorized {
            self.credentials.refused(now_ms);
        }
        let ended = Ended { batch: id, verdict, status: answer.status, ids, reason };
        self.delivery.ended(ended, now_ms, &self.driver);
    }

    fn on_failure(&mut self, id: BatchId, failure: &Failure, now_ms: u64) {
        let verdict = judge_failure(failure);
        if verdict != Verdict::Skipped {
            self.log_failure(failure, now_ms);
        }
        let ended = Ended { batch: id, verdict, status: 0, ids: Ids::Unchecked, reason: None };
        self.delivery.ended(ended, now_ms, &self.driver);
    }
}
