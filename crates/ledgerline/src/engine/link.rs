//! What batches are sent over: connections to a DataStorage, or for users' tests a memory.

use std::sync::Arc;

use bytes::Bytes;
use ledgerline_transport::{Connection, ConnectionEvent, Target};
use tokio::sync::mpsc::UnboundedSender;

use super::Engine;
use crate::delivery::BatchId;
#[cfg(feature = "testing")]
use crate::testing::{MemoryStorage, MemoryWire};

/// Where an engine's batches go.
pub(crate) enum Link {
    /// To the DataStorage at the configured URL.
    Http,
    #[cfg(feature = "testing")]
    Memory(MemoryStorage),
}

/// One of an engine's ways there.
#[derive(Debug)]
pub(super) enum Wire {
    Http(Connection),
    #[cfg(feature = "testing")]
    Memory(MemoryWire),
}

impl Wire {
    pub(super) fn send(&self, batch: BatchId, target: &Target, lines: &str, body: Vec<Bytes>) {
        match self {
            Self::Http(connection) => connection.send(batch, target, lines, body),
            #[cfg(feature = "testing")]
            Self::Memory(wire) => wire.send(batch, &body),
        }
    }

    /// Leaves this socket after its last answer.
    pub(super) fn renew(&self, socket: u64) {
        match self {
            Self::Http(connection) => connection.renew(socket),
            #[cfg(feature = "testing")]
            Self::Memory(_) => {}
        }
    }

    /// Whether it has an open socket.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_open(),
            #[cfg(feature = "testing")]
            Self::Memory(_) => true,
        }
    }
}

impl Engine {
    pub(super) fn wire(&self, slot: usize, events: &UnboundedSender<ConnectionEvent>) -> Wire {
        let events = events.clone();
        match &self.link {
            Link::Http => {
                let config = self.connection_config.clone();
                Wire::Http(Connection::spawn(slot, Arc::clone(&self.endpoint), config, events))
            }
            #[cfg(feature = "testing")]
            Link::Memory(storage) => Wire::Memory(storage.wire(slot, events)),
        }
    }
}
