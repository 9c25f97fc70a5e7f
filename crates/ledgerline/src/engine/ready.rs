//! Asking DataStorage whether it is ready, for services that must not take work before it is.
//!
//! `GET /readyz`, which wants no token, over a connection of its own: a probe waits behind no
//! batch.

use std::sync::Arc;
use std::time::Duration;

use ledgerline_transport::{Connection, ConnectionEvent, What};
use tokio::sync::mpsc::UnboundedSender;

use super::Engine;
use super::link::Link;
use crate::error::ReadyError;
use crate::waiting::Reply;

/// The callers who wait, and the probe that is on its way.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    waiting: Vec<Waiting>,
    connection: Option<Connection>,
    is_probing: bool,
    next_ms: u64,
    /// What the last probe came to.
    last: Option<Box<str>>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Duration,
    deadline_ms: u64,
    reply: Reply<Result<(), ReadyError>>,
}

impl Readiness {
    /// When there is something to do.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let deadlines = self.waiting.iter().map(|waiting| waiting.deadline_ms);
        let probe_ms = (!self.is_probing && !self.waiting.is_empty()).then_some(self.next_ms);
        deadlines.chain(probe_ms).min()
    }

    /// The engine has ended, or begins anew.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.is_probing = false;
    }
}

impl Engine {
    /// A connection for probes, in the engine's present runtime.
    pub(super) fn connect_probe(&mut self, events: &UnboundedSender<ConnectionEvent>) {
        if matches!(self.link, Link::Http) {
            let (endpoint, config) = (Arc::clone(&self.endpoint), self.connection_config.clone());
            let connection = Connection::spawn(PROBE_SLOT, endpoint, config, events.clone());
            self.readiness.connection = Some(connection);
        }
    }

    pub(super) fn await_ready(
        &mut self,
        now_ms: u64,
        deadline: Duration,
        reply: Reply<Result<(), ReadyError>>,
    ) {
        self.readiness.waiting.retain(|waiting| !waiting.reply.is_abandoned());
        if self.readiness.waiting.len() >= WAITING_MAX {
            return reply.send(Err(ReadyError::Busy));
        }
        let deadline_ms =
            now_ms.saturating_add(deadline.as_millis().try_into().unwrap_or(u64::MAX));
        self.readiness.waiting.push(Waiting { deadline, deadline_ms, reply });
    }

    /// Sends a probe if one is due, and tells those whose time is up.
    pub(super) fn probe(&mut self, now_ms: u64) {
        if self.readiness.waiting.is_empty() {
            return;
        }
        if !self.readiness.is_probing && now_ms >= self.readiness.next_ms {
            let Self { readiness, ready_target, .. } = self;
            match &readiness.connection {
                Some(connection) => {
                    readiness.is_probing = true;
                    connection.send(0, ready_target, "", Vec::new());
                }
                None => return self.are_ready(), // A memory always is.
            }
        }
        for waiting in std::mem::take(&mut self.readiness.waiting) {
            if now_ms >= waiting.deadline_ms {
                let (deadline, last) = (waiting.deadline, self.readiness.last.clone());
                waiting.reply.send(Err(ReadyError::Deadline { deadline, last }));
            } else {
                self.readiness.waiting.push(waiting);
            }
        }
    }

    pub(super) fn on_probe(&mut self, what: &What, now_ms: u64) {
        let last = match what {
            What::FirstByte(_) => return,
            What::Answered(answer) if (200..300).contains(&answer.status) => {
                self.readiness.is_probing = false;
                return self.are_ready();
            }
            What::Answered(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                format!("status {}: {:.200}", answer.status, body.trim())
            }
            What::Failed(failure) => failure.to_string(),
        };
        self.readiness.last = Some(last.into());
        self.readiness.is_probing = false;
        self.readiness.next_ms = now_ms + PROBE_INTERVAL_MS;
    }

    fn are_ready(&mut self) {
        for waiting in std::mem::take(&mut self.readiness.waiting) {
            waiting.reply.send(Ok(()));
        }
    }
}

/// No batch is ever sent over it.
pub(super) const PROBE_SLOT: usize = usize::MAX;
const PROBE_INTERVAL_MS: u64 = 200;
const WAITING_MAX: usize = 1_024;
