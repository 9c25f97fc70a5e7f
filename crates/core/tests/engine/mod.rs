//! An engine for tests: a bell that keeps its ring, and records that can be told apart.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use ledgerline_core::{Anonymous, Bell, Driver, Lanes, RECORD_BYTES_MAX, Record};

pub struct Engine {
    pub lanes: Lanes,
    pub driver: Driver,
    pub token: Token,
}

impl Engine {
    pub fn new(blocks: usize, lanes: usize) -> Self {
        let token = Token::default();
        let bell = Box::new(token.clone());
        let (lanes, driver) = Lanes::new(Box::new(Anonymous::new(blocks)), lanes, bell);
        Self { lanes, driver, token }
    }
}

/// A bell whose ring is kept until somebody waits for it.
#[derive(Clone, Default)]
pub struct Token(Arc<(Mutex<bool>, Condvar)>);

impl Token {
    /// Waits for a ring. One that never comes is the failure that this looks for.
    pub fn wait(&self) {
        let (has_rung, changed) = &*self.0;
        let waiting = has_rung.lock().unwrap();
        let (mut has_rung, timeout) =
            changed.wait_timeout_while(waiting, PATIENCE, |has_rung| !*has_rung).unwrap();
        assert!(!timeout.timed_out(), "nobody rang in {PATIENCE:?}");
        *has_rung = false;
    }

    pub fn clear(&self) {
        *self.0.0.lock().unwrap() = false;
    }
}

impl Bell for Token {
    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
}

/// Bytes to make records of.
pub struct Noise(Vec<u8>);

impl Noise {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; RECORD_BYTES_MAX + STARTS];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// Names itself and its length, then noise.
    pub fn record(&self, producer: u32, number: u32, len: usize) -> Vec<u8> {
        let mut record = Vec::with_capacity(len);
        for word in [producer, number, u32::try_from(len).unwrap()] {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record.extend_from_slice(self.body(producer, number, len));
        record
    }

    /// The (producer, number) of a record that is whole.
    pub fn identify(&self, record: &[u8]) -> (u32, u32) {
        let word = |k: usize| u32::from_le_bytes(record[4 * k..][..4].try_into().unwrap());
        let (producer, number) = (word(0), word(1));
        assert_eq!(word(2) as usize, record.len(), "{producer} {number}");
        let body = self.body(producer, number, record.len());
        assert!(record[RECORD_BYTES_MIN..] == *body, "{producer} {number} isn't whole");
        (producer, number)
    }

    fn body(&self, producer: u32, number: u32, len: usize) -> &[u8] {
        let start = (producer.wrapping_mul(7_919) ^ number.wrapping_mul(31)) as usize % STARTS;
        &self.0[start..][..len - RECORD_BYTES_MIN]
    }
}

/// A seed, printed for the case that the test fails.
pub fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

/// Takes whatever there is.
pub fn take_all(driver: &mut Driver) -> Vec<Record> {
    let mut records = Vec::new();
    driver.take_sealed(&mut |record| records.push(record));
    driver.take_open(u64::MAX, &mut |record| records.push(record));
    records
}

/// Records in the lane until it is refused; returns how many were accepted.
pub fn fill_lane(lanes: &Lanes, lane: usize) -> u64 {
    let record = [7; 5_000];
    (0..).take_while(|_| lanes.record(lane, &record, 0).is_ok()).count() as u64
}

/// What names a record stands in front of its noise.
pub const RECORD_BYTES_MIN: usize = 12;
const STARTS: usize = 4_099;
const PATIENCE: Duration = Duration::from_secs(20);
