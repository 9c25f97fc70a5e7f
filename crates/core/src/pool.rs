//! The three queues of block handles: `ready`, `hot`, `free`.
//!
//! `free` has room for every block, and a free block's handle is in one queue once. `ready` has
//! room for every block, and once more for each rebuild of the driver: a rebuild finds blocks that
//! were sealed and not pushed yet, and they may be sealed again before that push comes. So a push
//! cannot fail. `hot` is small: blocks that were in use a moment ago, and whose memory is still in
//! cache, are used again before the others.

#[cfg(not(ledgerline_loom))]
use crossbeam_queue::ArrayQueue;

use crate::{driver::REBUILDS_MAX, word::BlockWord};

#[derive(Debug)]
pub(crate) struct Pool {
    ready: ArrayQueue<Ready>,
    hot: ArrayQueue<u32>,
    free: ArrayQueue<u32>,
}

/// A block that was just sealed, and the lane that it was sealed for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) lane: u32,
    pub(crate) block: BlockWord,
}

impl Pool {
    /// All of `blocks` blocks free.
    pub(crate) fn new(blocks: usize, hot: usize) -> Self {
        let pool = Self {
            ready: ArrayQueue::new(blocks * (1 + REBUILDS_MAX as usize)),
            hot: ArrayQueue::new(hot),
            free: ArrayQueue::new(blocks),
        };
        for id in 0..blocks {
            pool.push_free(id as u32);
        }
        pool
    }

    /// A block for a lane: the most recently used kind first.
    pub(crate) fn pop_block(&self) -> Option<u32> {
        self.hot.pop().or_else(|| self.free.pop())
    }

    pub(crate) fn push_block(&self, id: u32) {
        if let Err(id) = self.hot.push(id) {
            self.push_free(id);
        }
    }

    pub(crate) fn push_ready(&self, ready: Ready) {
        if self.ready.push(ready).is_err() {
            unreachable!(
                "`ready` has room for every block and every rebuild, and a seal is pushed once"
            );
        }
    }

    pub(crate) fn pop_ready(&self) -> Option<Ready> {
        self.ready.pop()
    }

    /// Blocks that no lane holds.
    pub(crate) fn blocks_free(&self) -> usize {
        self.hot.len() + self.free.len()
    }

    fn push_free(&self, id: u32) {
        if self.free.push(id).is_err() {
            unreachable!("`free` has room for every block, and a block is pushed once per use");
        }
    }
}

/// Stands in for crossbeam's queue, which loom cannot see into: a correct bounded queue, so that
/// the model explores the protocol around it.
#[cfg(ledgerline_loom)]
#[derive(Debug)]
struct ArrayQueue<T> {
    items: loom::sync::Mutex<std::collections::VecDeque<T>>,
    capacity: usize,
}

#[cfg(ledgerline_loom)]
impl<T> ArrayQueue<T> {
    fn new(capacity: usize) -> Self {
        Self { items: loom::sync::Mutex::new(std::collections::VecDeque::new()), capacity }
    }

    fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().expect("no thread of a model panics while it holds this");
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    fn pop(&self) -> Option<T> {
        self.items.lock().expect("no thread of a model panics while it holds this").pop_front()
    }

    fn len(&self) -> usize {
        self.items.lock().expect("no thread of a model panics while it holds this").len()
    }
}
