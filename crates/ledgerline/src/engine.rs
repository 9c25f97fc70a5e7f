//! The driver: the engine's own thread, and the loop that it runs.
//!
//! One turn of the loop: take what is due from the lanes, let the delivery machine decide, put its
//! batches on connections, give every settled record its outcome, answer those who wait. Then
//! sleep until something happens: a bell, an answer, a call, or the next deadline.

mod answers;
mod calls;
mod contents;
mod credentials;
mod failsafe;
mod life;
mod lines;
mod link;
mod lost_ring;
mod notices;
mod pulse;
mod queueing;
mod rate_limited_log;
mod ready;
mod redelivery;
mod size_limit;
mod snapshot;
mod trouble;

use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ledgerline_core::{Bell, Driver, Loan, Outcome};
use ledgerline_transport::{ConnectionConfig, ConnectionEvent, Endpoint, Target};
use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, wall_clock};
use crate::config::Config;
use crate::delivery::{Counts, Delivery, Doubt, Renewal, Send, Settlement};
use crate::error::{CloseError, StartError};
use crate::report::{Closed, Report};
use crate::signal::Signal;

pub(crate) use self::calls::Command;
pub(crate) use self::link::Link;
pub(crate) use self::lost_ring::LostRing;
pub(crate) use self::pulse::Pulse;
use self::{
    calls::Calls, credentials::Credentials, failsafe::End, failsafe::Failsafe,
    failsafe::LOSS_EVENTS_MAX, lines::Lines, link::Wire, notices::Notices, pulse::Heart,
    pulse::Watchdog, rate_limited_log::RateLimitedLog, ready::Readiness, redelivery::Redelivery,
    snapshot::Snapshot, trouble::Trouble,
};

/// What the engine leaves when its thread ends.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) closed: Result<Closed, CloseError>,
    pub(crate) report: Option<Report>,
}

pub(crate) type Ended = OnceLock<Last>;

/// What the engine's thread shares with the handles, beside the lanes.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) ended: Arc<Ended>,
    /// Given when a lane would find a block.
    pub(crate) room: Arc<Signal>,
    /// Given when records were sent or settled.
    pub(crate) settled: Arc<Signal>,
    /// The last report, at most a second old while the engine lives.
    pub(crate) latest: Arc<Mutex<Option<Report>>>,
    /// The last lost events.
    pub(crate) lost: Arc<Mutex<LostRing>>,
}

/// Wakes the driver. Keeps a ring for a driver that is awake.
#[derive(Debug, Clone, Default)]
pub(crate) struct NotifyBell(Arc<Notify>);

impl Bell for NotifyBell {
    fn ring(&self) {
        self.0.notify_one();
    }
}

pub(crate) struct Engine {
    clock: Clock,
    driver: Driver,
    delivery: Delivery,
    link: Link,
    target: Target,
    ready_target: Target,
    readiness: Readiness,
    redelivery: Redelivery,
    endpoint: Arc<Endpoint>,
    connection_config: ConnectionConfig,
    credentials: Credentials,
    connections_max: usize,
    drop_timeout: Duration,
    /// The connections that batches are sent over.
    wires: Vec<Wire>,
    lines_out: Vec<LineOut>,
    /// Where they tell what happens.
    events: Option<mpsc::UnboundedSender<ConnectionEvent>>,
    calls: Calls,
    failures: RateLimitedLog<Trouble>,
    lines: Lines,
    notices: Notices,
    failsafe: Failsafe,
    heart: Heart,
    snapshot: Snapshot,
    lanes: LaneWatch,
    /// The machine's counts as the accounts have them.
    counted: Counts,
    flush_interval_ms: u64,
    batch_bytes_max: usize,
    next_verify_ms: u64,
    /// Blocks that eviction keeps free.
    reserve_blocks: usize,
    room: Arc<Signal>,
    settled: Arc<Signal>,
    /// A record was sent or settled in this turn.
    has_news: bool,
    latest: Arc<Mutex<Option<Report>>>,
    /// Blocks in which events that are set apart may be all that is left.
    blocks_apart_max: usize,
    /// Times that the engine began anew after a panic.
    restarts: u32,
}

/// What the engine knows of a connection that batches are sent over.
#[derive(Debug, Clone, Copy, Default)]
struct LineOut {
    /// Which socket it uses, as it counts them.
    socket: u64,
    /// How often it was made anew because its answers could not be trusted.
    epoch: usize,
}

/// When to look into the lanes' open blocks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneWatch {
    /// At this moment: nothing in them is due before.
    Until(u64),
    /// When the bell rings: everything in them was taken.
    Bell,
}

/// What ended the driver's sleep.
enum Woken {
    Event(Option<ConnectionEvent>),
    Command(Option<Command>),
    Bell,
    Timer,
}

impl Engine {
    /// Starts the engine's thread, and the one that watches it.
    #[expect(clippy::too_many_arguments, reason = "each is another end that the store holds")]
    pub(crate) fn spawn(
        config: &Config,
        link: Link,
        driver: Driver,
        clock: Clock,
        pulse: Arc<Pulse>,
        bell: NotifyBell,
        commands: mpsc::Receiver<Command>,
        Shared { ended, room, settled, latest, lost }: Shared,
    ) -> Result<JoinHandle<()>, StartError> {
        let endpoint = config.endpoint()?;
        let target = endpoint.post(BATCH_PATH).expect("a constant path is valid");
        let ready_target = endpoint.get(READY_PATH).expect("a constant path is valid");
        let runtime = life::runtime().map_err(StartError::Thread)?;
        let mut connection_config = ConnectionConfig::default();
        connection_config.connect_timeout = config.connect_timeout;
        connection_config.request_timeout = config.request_timeout;
        connection_config.depth = config.pipeline_depth_max;
        #[cfg(feature = "__tls")]
        if endpoint.is_tls() {
            let tls = ledgerline_transport::Tls::new(config.tls_files());
            let tls = tls.map_err(StartError::Tls)?;
            connection_config.tls = Some(Arc::new(tls));
        }
        let credentials = Credentials::new(config.token_file.as_ref(), &config.headers)?;
        let watchdog = Watchdog::spawn(Arc::clone(&pulse)).map_err(StartError::Thread)?;
        let engine = Self {
            clock,
            driver,
            delivery: Delivery::new(config.limits(), clock.now_ms(), fastrand::Rng::new()),
            link,
            target,
            ready_target,
            readiness: Readiness::default(),
            redelivery: Redelivery::new(Arc::clone(&lost)),
            endpoint: Arc::new(endpoint),
            connection_config,
            credentials,
            connections_max: config.connections_max,
            drop_timeout: config.drop_timeout,
            wires: Vec::new(),
            lines_out: Vec::new(),
            events: None,
            calls: Calls::default(),
            failures: RateLimitedLog::new("audit requests failed"),
            lines: Lines::new(),
            notices: Notices::new(),
            heart: Heart::new(pulse),
            snapshot: Snapshot::default(),
            failsafe: Failsafe::new(
                lost,
                config.lost_events_max,
                config.lost_bytes_max as usize,
                config.on_loss.clone(),
            ),
            lanes: LaneWatch::Until(0),
            counted: Counts::default(),
            flush_interval_ms: config.limits().flush_interval_ms,
            batch_bytes_max: config.batch_bytes_max as usize,
            next_verify_ms: VERIFY_INTERVAL_MS,
            reserve_blocks: config.reserve_blocks(),
            room,
            settled,
            has_news: false,
            latest,
            blocks_apart_max: config.blocks_apart_max(),
            restarts: 0,
        };
        let run = move || {
            let _watched = watchdog;
            engine.live(runtime, &bell, commands, &ended);
        };
        std::thread::Builder::new().name("ledgerline".into()).spawn(run).map_err(StartError::Thread)
    }

    /// Runs until the engine is closed and has given everything its outcome.
    async fn run(&mut self, bell: &NotifyBell, commands: &mut mpsc::Receiver<Command>) {
        let (sender, mut events) = mpsc::unbounded_channel();
        self.wires = (0..self.connections_max).map(|slot| self.wire(slot, &sender)).collect();
        self.lines_out = vec![LineOut::default(); self.connections_max];
        self.events = Some(sender.clone());
        self.redelivery.wire = Some(self.wire(redelivery::REDELIVERY_SLOT, &sender));
        self.connect_probe(&sender);
        self.heart.begins(self.clock.now_ms());
        loop {
            let now_ms = self.clock.now_ms();
            self.turn(now_ms);
            if self.is_finished(now_ms) {
                return;
            }
            let wake_ms = self.wake_ms();
            self.heart.sleeps(self.clock.now_ms(), wake_ms);
            let wake_at = tokio::time::Instant::from_std(self.clock.instant_at(wake_ms));
            let woken = tokio::select! {
                biased;
                event = events.recv() => Woken::Event(event),
                command = commands.recv(), if !self.calls.is_abandoned() => Woken::Command(command),
                () = bell.0.notified() => Woken::Bell,
                () = tokio::time::sleep_until(wake_at) => Woken::Timer,
            };
            self.heart.wakes(self.clock.now_ms());
            match woken {
                Woken::Event(event) => {
                    let mut next = event;
                    while let Some(event) = next {
                        self.on_connection(event);
                        next = events.try_recv().ok();
                    }
                }
                Woken::Command(command) => self.on_command(command),
                Woken::Bell if self.lanes == LaneWatch::Bell => self.lanes = LaneWatch::Until(0),
                Woken::Bell | Woken::Timer => {}
            }
        }
    }

    /// Everything that is to be done at this moment.
    fn turn(&mut self, now_ms: u64) {
        self.take(now_ms);
        self.delivery.advance(now_ms);
        if self.calls.is_last_try(now_ms) {
            self.delivery.retry_now(now_ms);
        }
        while let Some(send) = self.delivery.next_send(now_ms, &self.driver) {
            self.renew();
            self.send(send);
        }
        self.renew();
        if now_ms >= self.next_verify_ms {
            self.delivery.expire(now_ms);
        }
        self.settle();
        self.evict();
        self.bound_apart();
        self.driver.tend_pool();
        if self.driver.may_have_room() {
            self.room.give();
        }
        if std::mem::take(&mut self.has_news) {
            self.settled.give();
        }
        self.note_snapshot(now_ms);
        if now_ms >= self.next_verify_ms {
            self.next_verify_ms = now_ms + VERIFY_INTERVAL_MS;
            if let Err(imbalance) = self.driver.verify() {
                tracing::error!(%imbalance, "the audit accounts do not balance");
            }
            self.publish();
            self.expect_redelivery(now_ms);
        }
        self.failsafe.tick(now_ms);
        self.redeliver(now_ms);
        self.probe(now_ms);
        self.answer_flushes(now_ms);
        self.heart.sets_aside(self.failsafe.hook_time());
    }

    /// Takes what is due from the lanes, or all of it, for those who can't wait.
    fn take(&mut self, now_ms: u64) {
        let Self { driver, delivery, .. } = self;
        let mut was_sealed = false;
        driver.take_sealed(&mut |record| {
            was_sealed = true;
            delivery.push(record);
        });
        // A producer without a block is helped soonest by sending what lies in the open ones.
        let wants_all = self.calls.wants_all() || driver.is_starving();
        if wants_all || (was_sealed && self.calls.has_flushes()) {
            delivery.flush();
        }
        let is_due = matches!(self.lanes, LaneWatch::Until(at_ms) if at_ms <= now_ms);
        if !wants_all && !is_due {
            return;
        }
        let accepted_by_ms =
            if wants_all { u64::MAX } else { now_ms.saturating_sub(self.flush_interval_ms) };
        let waiting = driver.take_open(accepted_by_ms, &mut |record| delivery.push(record));
        if wants_all {
            delivery.flush();
        }
        let has_hole = waiting.has_hole || driver.has_hole();
        self.calls.were_taken(has_hole);
        self.lanes = if has_hole {
            LaneWatch::Until(now_ms + TICK_MS)
        } else if let Some(oldest_ms) = waiting.oldest_ms {
            LaneWatch::Until(oldest_ms + self.flush_interval_ms)
        } else if driver.park() {
            LaneWatch::Bell
        } else {
            LaneWatch::Until(now_ms)
        };
    }

    fn send(&mut self, Send { connection, batch }: Send) {
        let found = self.delivery.batch(batch).expect("a batch to send exists");
        let mut body = vec![Bytes::from_static(b"[")];
        for (place, span) in found.spans().enumerate() {
            self.driver.mark_sent(span.block, span.first, span.count);
            let loan = self.driver.lend(span.block, span.first, span.count);
            let bytes = Bytes::from_owner(loan);
            // Every record begins with a comma; an array must not.
            body.push(if place == 0 { bytes.slice(1..) } else { bytes });
        }
        body.push(Bytes::from_static(b"]"));
        let now_ms = self.clock.now_ms();
        let Self { driver, lines, .. } = self;
        let utilization =
            || 100_u64.saturating_sub(100 * driver.blocks_free() as u64 / driver.blocks() as u64);
        lines.flushed(found, self.flush_interval_ms, utilization, now_ms);
        let lines = self.credentials.lines(now_ms);
        self.wires[connection].send(batch, &self.target, lines, body);
        self.has_news = true;
    }

    /// Leaves the connections that delivery has had enough of.
    fn renew(&mut self) {
        for Renewal { connection, is_at_once } in self.delivery.take_renewals() {
            let line = &mut self.lines_out[connection];
            if !is_at_once {
                self.wires[connection].renew(line.socket);
                continue;
            }
            line.epoch += 1;
            line.socket = 0;
            let slot = connection + line.epoch * self.connections_max;
            if let Some(events) = &self.events {
                self.wires[connection] = self.wire(slot, events);
            }
        }
    }

    /// Gives the records of settled batches their outcome.
    fn settle(&mut self) {
        // First: what is settled is not set apart, and its place may be used again.
        for (span, is_apart) in self.delivery.take_apart_changes() {
            self.driver.set_apart(span.block, span.first, span.count, is_apart);
            self.has_news = true;
        }
        for notice in self.delivery.take_notices() {
            self.notices.note(notice, &self.driver, self.clock.now_ms());
        }
        let settlements = self.delivery.take_settlements();
        for same in settlements.chunk_by(Settlement::has_same_end) {
            self.settle_alike(same);
        }
        let counts = self.delivery.counts();
        let known = std::mem::replace(&mut self.counted, counts);
        if counts.possibly_duplicated > known.possibly_duplicated {
            let records = counts.possibly_duplicated - known.possibly_duplicated;
            self.driver.count_possibly_duplicated(records);
        }
    }

    /// Gives records their outcome, which is the same for all, and tells of them if they are lost.
    fn settle_alike(&mut self, settlements: &[Settlement]) {
        let Some(Settlement { outcome, doubt, reason, .. }) = settlements.first() else { return };
        let (outcome, doubt, reason) = (*outcome, *doubt, reason.as_ref());
        let mut lost = Vec::new();
        for Settlement { span, .. } in settlements {
            if !outcome.is_delivered() {
                let indices = span.first..span.first + span.count;
                lost.extend(indices.map(|index| self.driver.lend(span.block, index, 1)));
            }
            if doubt.is_ambiguous {
                self.driver.mark_possibly_stored(span.block, span.first, span.count);
            }
            self.driver.settle(span.block, span.first, span.count, outcome);
            self.snapshot.queueing.settled(outcome, span.count, self.clock.now_ms());
        }
        self.has_news = true;
        // Settled first: should telling it panic, it isn't told of what is sent again.
        if !lost.is_empty() {
            let now = (wall_clock(), self.clock.now_ms());
            self.failsafe.lost(&lost, End { outcome, doubt, reason }, now);
        }
    }

    /// Makes room, where the configuration asks for it, when half of the reserve is used up.
    fn evict(&mut self) {
        let free = self.driver.blocks_free() + self.driver.blocks_lent_out();
        if free < self.reserve_blocks.div_ceil(2) {
            let wanted = self.reserve_blocks - free;
            self.delivery.evict(&self.driver.sealed_blocks(), wanted);
            self.settle();
        }
    }

    /// Events that are set apart keep no more of the buffer to themselves than they may.
    fn bound_apart(&mut self) {
        if self.driver.apart() == 0 {
            return;
        }
        let blocks = self.driver.blocks_apart();
        let beyond = blocks.len().saturating_sub(self.blocks_apart_max);
        if beyond > 0 {
            // Some more, so that it isn't for each block that everything is looked through.
            let wanted = beyond + self.blocks_apart_max / 8;
            self.delivery.dead_letter_apart(&blocks, wanted);
            self.settle();
        }
    }

    /// Gives up whatever is left.
    fn abandon(&mut self, outcome: Outcome) -> u64 {
        let Self { driver, failsafe, clock, .. } = self;
        let now = (wall_clock(), clock.now_ms());
        let end = End { outcome, doubt: Doubt::default(), reason: None };
        let mut lost = Vec::new();
        let abandoned = driver.abandon(outcome, &mut |loan: Loan| {
            lost.push(loan);
            if lost.len() == LOSS_EVENTS_MAX {
                failsafe.lost(&std::mem::take(&mut lost), end, now);
            }
        });
        failsafe.lost(&lost, end, now);
        failsafe.tick(u64::MAX);
        abandoned
    }

    fn wake_ms(&self) -> u64 {
        let lanes_ms = match self.lanes {
            LaneWatch::Until(at_ms) => Some(at_ms),
            LaneWatch::Bell => None,
        };
        let is_available = self.delivery.unavailable().is_none() && !self.calls.is_closing();
        let redelivery_ms = self.redelivery.next_ms().filter(|_| is_available);
        let hole_ms = self.driver.has_hole().then(|| self.clock.now_ms() + TICK_MS);
        let deadlines = [
            self.delivery.next_ms(),
            self.calls.next_ms(),
            self.failsafe.next_ms(),
            self.readiness.next_ms(),
            redelivery_ms,
            lanes_ms,
            hole_ms,
        ];
        deadlines.into_iter().flatten().min().unwrap_or(u64::MAX).min(self.next_verify_ms)
    }
}

const BATCH_PATH: &str = "/api/v1/audit/events/batch";
const READY_PATH: &str = "/readyz";
/// How soon to look again at a record that is reserved but not committed.
const TICK_MS: u64 = 1;
const VERIFY_INTERVAL_MS: u64 = 1_000;
