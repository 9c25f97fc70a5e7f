//! What connections tell: bytes written, answers, failures.

use ledgerline_codec::event_id_text;
use ledgerline_transport::{Answer, Cause, Certainty, ConnectionEvent, Failure, What};

use super::{Engine, ready, redelivery};
use crate::delivery::{BatchId, Verdict, judge, keeps_our_ids};

impl Engine {
    pub(super) fn on_connection(&mut self, event: ConnectionEvent) {
        let now_ms = self.clock.now_ms();
        if event.slot == ready::PROBE_SLOT {
            return self.on_probe(&event.what, now_ms);
        }
        if event.slot == redelivery::REDELIVERY_SLOT {
            return self.on_redelivery(&event.what, now_ms);
        }
        let batch = event.request_id;
        match event.what {
            What::FirstByte(at) => self.delivery.first_byte(batch, self.clock.ms_at(at)),
            What::Answered(answer) if self.is_anothers(batch, &answer) => {
                // A server that answers once too often moves every later answer of the connection.
                let (certainty, cause) = (Certainty::Ambiguous, Cause::Unsolicited);
                let failure = Failure { certainty, cause };
                self.log_failure(&failure, now_ms);
                self.delivery.failed(batch, &failure, now_ms);
            }
            What::Answered(answer) => {
                let keeps_ids = (answer.status == 201 && self.delivery.wants_proof(batch))
                    .then(|| self.proves_idempotence(batch, &answer));
                let is_stored = answer.status == 201 || answer.status == 202;
                if judge(&answer) == Verdict::TooBig {
                    self.snapshot.size_limit.refused(now_ms);
                } else if !is_stored {
                    self.log_answer(&answer, now_ms);
                }
                if let Some(found) = self.delivery.batch(batch) {
                    self.lines.written(found, answer.status, now_ms);
                    if is_stored {
                        self.snapshot.size_limit.stored(found.events as usize);
                    }
                }
                if answer.status == 401 {
                    self.credentials.refused(now_ms);
                }
                self.delivery.answered(batch, &answer, keeps_ids, now_ms);
            }
            What::Failed(failure) => {
                self.log_failure(&failure, now_ms);
                self.delivery.failed(batch, &failure, now_ms);
            }
        }
    }

    /// Whether a server that keeps our ids has answered with those of another batch. One that has
    /// stopped to keep them is believed after some answers in a row: the breaker stops the load
    /// before, and then an answer too many comes to no request, and ends its connection.
    fn is_anothers(&mut self, batch: BatchId, answer: &Answer) -> bool {
        if answer.status != 201 || !self.delivery.is_idempotent() {
            return false;
        }
        let Some(found) = self.delivery.batch(batch) else { return false };
        let Some(span) = found.spans.first() else { return false };
        let loan = self.driver.lend(span.block, span.first, 1);
        let id = event_id_text(loan.as_ref()).unwrap_or_default();
        let is_ours = memchr::memmem::find(&answer.body, id).is_some();
        self.strange_answers = if is_ours { 0 } else { self.strange_answers + 1 };
        !is_ours && self.strange_answers <= STRANGE_ANSWERS_MAX
    }

    /// Whether the answer lists the batch's ids, in their order.
    fn proves_idempotence(&self, batch: BatchId, answer: &Answer) -> bool {
        let Some(found) = self.delivery.batch(batch) else { return false };
        let records = found.spans.iter().flat_map(|span| {
            (span.first..span.first + span.count)
                .map(|index| self.driver.lend(span.block, index, 1))
        });
        let loans: Vec<_> = records.collect();
        let ids = loans.iter().map(|loan| event_id_text(loan.as_ref()).unwrap_or_default());
        keeps_our_ids(&answer.body, ids)
    }
}

/// More than the failures in a row that open the breaker.
const STRANGE_ANSWERS_MAX: u32 = 16;
