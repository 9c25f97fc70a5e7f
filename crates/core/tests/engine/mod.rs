//! An engine for tests: a bell that keeps its ring, and what every test of it does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use ledgerline_core::{Anonymous, Bell, Driver, Lanes, Record};

pub(crate) struct Engine {
    pub(crate) lanes: Lanes,
    pub(crate) driver: Driver,
    pub(crate) token: Token,
}

impl Engine {
    pub(crate) fn new(blocks: usize, lanes: usize) -> Self {
        let token = Token::new();
        let bell = Box::new(token.clone());
        let (lanes, driver) =
            Lanes::new(Box::new(Anonymous::new(blocks).expect("memory")), lanes, bell);
        Self { lanes, driver, token }
    }
}

/// A bell whose ring is kept until the thread that made it waits for it.
#[derive(Clone)]
pub(crate) struct Token(Arc<Kept>);

struct Kept {
    has_rung: AtomicBool,
    waiter: Thread,
}

impl Token {
    fn new() -> Self {
        Self(Arc::new(Kept { has_rung: AtomicBool::new(false), waiter: thread::current() }))
    }

    /// Waits for a ring. One that never comes is the failure that this looks for.
    pub(crate) fn wait(&self) {
        let start = Instant::now();
        while !self.0.has_rung.swap(false, Ordering::Acquire) {
            let left = PATIENCE.checked_sub(start.elapsed()).expect("somebody rings");
            thread::park_timeout(left);
        }
    }
}

impl Bell for Token {
    fn ring(&self) {
        self.0.has_rung.store(true, Ordering::Release);
        self.0.waiter.unpark();
    }
}

/// A seed, printed for the case that the test fails.
pub(crate) fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

/// Takes whatever there is.
pub(crate) fn take_all(driver: &mut Driver) -> Vec<Record> {
    let mut records = Vec::new();
    driver.take_sealed(&mut |record| records.push(record));
    driver.take_open(u64::MAX, &mut |record| records.push(record));
    records
}

const PATIENCE: Duration = Duration::from_secs(20);
