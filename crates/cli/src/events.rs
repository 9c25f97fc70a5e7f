//! The events that `demo` and `load` record: six to a story, as remediations tell them.
//!
//! Invariant: an event is a function of its number, so that a refused one can be tried again, and
//! making one allocates nothing: its contents are prepared beforehand, its fields are borrowed.
//! Limit: contents repeat, only correlation ids are new for each story.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ledgerline::{Category, DataError, Event, EventData, Json, Outcome};

use crate::args::Usage;

/// Ready JSON text, owned; checked each time it is used, as a caller's own text would be.
#[derive(Debug)]
struct Payload(String);

impl EventData for Payload {
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        Json(&self.0).append_to(out)
    }

    fn append_checked(&self, levels_above: u32, out: &mut Vec<u8>) -> Result<(), DataError> {
        Json(&self.0).append_checked(levels_above, out)
    }
}

/// Contents that events take turns with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Payloads(Arc<[Payload]>);

impl Payloads {
    /// The lines of a file, or contents of our own.
    pub(crate) fn load(input: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = input else { return Ok(Self::generated()) };
        let text =
            fs::read_to_string(path).with_context(|| format!("--input {}", path.display()))?;
        Self::of_lines(&text).map_err(|problem| {
            anyhow::Error::new(Usage(format!("--input {}: {problem}", path.display())))
        })
    }

    fn of_lines(text: &str) -> Result<Self, String> {
        let mut scratch = Vec::new();
        let mut payloads = Vec::new();
        for (index, line) in text.lines().enumerate() {
            scratch.clear();
            let checked = Json(line).append_to(&mut scratch);
            checked.map_err(|error| format!("line {}: {error}", index + 1))?;
            payloads.push(Payload(line.to_owned()));
        }
        if payloads.is_empty() {
            return Err("the file has no line".to_owned());
        }
        Ok(Self(payloads.into()))
    }

    /// Each kind of event in each variant, the kinds in the order of a story.
    fn generated() -> Self {
        let subjects = SIGNALS.iter().zip(APPLICATIONS.iter().cycle());
        let payloads = subjects.flat_map(|(signal, application)| {
            KINDS.iter().map(|kind| {
                let data = kind.data.replace("{signal}", signal);
                Payload(data.replace("{application}", application))
            })
        });
        Self(payloads.collect())
    }
}

/// One producer's events.
#[derive(Debug)]
pub(crate) struct Stories {
    payloads: Payloads,
    /// Which producer, of how many: together they go once through all contents.
    producer: u64,
    producers: u64,
    /// The run and the producer, in front of each story's number.
    prefix: String,
    story: Option<u64>,
    correlation_id: String,
}

impl Stories {
    pub(crate) fn new(payloads: Payloads, run: &str, producer: u64, producers: u64) -> Self {
        let prefix = format!("rr-{run}-{producer}-");
        let correlation_id = String::with_capacity(prefix.len() + 20);
        Self { payloads, producer, producers, prefix, story: None, correlation_id }
    }

    /// The event of this number.
    pub(crate) fn event(&mut self, number: u64) -> Event<'_> {
        self.turn_to(number / KINDS.len() as u64);
        let kind = &KINDS[(number % KINDS.len() as u64) as usize];
        let place = number.wrapping_mul(self.producers).wrapping_add(self.producer);
        let payloads = &*self.payloads.0;
        // Our own contents belong to a kind; the story chooses among its variants.
        let payload = if payloads.len() == KINDS.len() * SIGNALS.len() {
            &payloads[(number % payloads.len() as u64) as usize]
        } else {
            &payloads[(place % payloads.len() as u64) as usize]
        };
        let (id, outcome) = (&self.correlation_id, kind.outcome);
        let mut event =
            Event::new(kind.event_type, kind.category, kind.action, outcome, id, payload);
        event.actor_type = Some("service");
        event.actor_id = Some(kind.actor_id);
        event.resource_type = Some(kind.resource_type);
        event.resource_id = Some(id);
        event.namespace = Some("payments");
        event.cluster_id = Some("prod-eu-1");
        event.severity = Some(kind.severity);
        event.duration_ms = kind.duration_ms;
        event.error_code = kind.error_code;
        event
    }

    fn turn_to(&mut self, story: u64) {
        if self.story != Some(story) {
            self.story = Some(story);
            self.correlation_id.clear();
            self.correlation_id.push_str(&self.prefix);
            write!(self.correlation_id, "{story:08}").expect("a String takes any text");
        }
    }
}

/// What events of one type have in common.
struct Kind {
    event_type: &'static str,
    category: Category,
    action: &'static str,
    outcome: Outcome,
    actor_id: &'static str,
    resource_type: &'static str,
    severity: &'static str,
    duration_ms: Option<i32>,
    error_code: Option<&'static str>,
    data: &'static str,
}

/// A story, from the signal to the message.
const KINDS: [Kind; 6] = [
    Kind {
        event_type: "gateway.signal.received",
        category: Category::Gateway,
        action: "received",
        outcome: Outcome::Success,
        actor_id: "system:serviceaccount:monitoring:alertmanager-main",
        resource_type: "Signal",
        severity: "critical",
        duration_ms: None,
        error_code: None,
        data: r#"{"event_type":"gateway.signal.received","signal_type":"alert","signal_name":"{signal}","namespace":"payments","fingerprint":"4be1c0a7d2f39e58b6a0417c9d3e2f10","resource_kind":"Deployment","resource_name":"{application}"}"#,
    },
    Kind {
        event_type: "signalprocessing.phase.transition",
        category: Category::SignalProcessing,
        action: "phase_transition",
        outcome: Outcome::Success,
        actor_id: "signalprocessing-controller",
        resource_type: "SignalProcessing",
        severity: "info",
        duration_ms: Some(38),
        error_code: None,
        data: r#"{"event_type":"signalprocessing.phase.transition","phase":"Classifying","signal":"{signal}","from_phase":"Enriching","to_phase":"Classifying"}"#,
    },
    Kind {
        event_type: "aianalysis.analysis.completed",
        category: Category::Analysis,
        action: "analysis_complete",
        outcome: Outcome::Success,
        actor_id: "aianalysis-controller",
        resource_type: "AIAnalysis",
        severity: "info",
        duration_ms: Some(41_209),
        error_code: None,
        data: r#"{"event_type":"aianalysis.analysis.completed","analysis_name":"ai-{application}","namespace":"payments","phase":"Completed","approval_required":true,"degraded_mode":false,"warnings_count":1,"confidence":0.91,"workflow_id":"rollback-deployment-v2"}"#,
    },
    Kind {
        event_type: "orchestrator.approval.requested",
        category: Category::Approval,
        action: "approval_requested",
        outcome: Outcome::Pending,
        actor_id: "remediationorchestrator-controller",
        resource_type: "RemediationApprovalRequest",
        severity: "warning",
        duration_ms: None,
        error_code: None,
        data: r#"{"event_type":"orchestrator.approval.requested","rr_name":"rr-{application}","namespace":"payments","reason":"production needs a human decision"}"#,
    },
    Kind {
        event_type: "workflowexecution.workflow.failed",
        category: Category::WorkflowExecution,
        action: "failed",
        outcome: Outcome::Failure,
        actor_id: "workflowexecution-controller",
        resource_type: "WorkflowExecution",
        severity: "critical",
        duration_ms: Some(162_004),
        error_code: Some("ERR_PIPELINE_FAILED"),
        data: r#"{"event_type":"workflowexecution.workflow.failed","workflow_id":"rollback-deployment-v2","workflow_version":"2.1.0","target_resource":"payments/deployment/{application}","phase":"Failed","failure_reason":"TaskFailed","retry_possible":true}"#,
    },
    Kind {
        event_type: "notification.message.sent",
        category: Category::Notification,
        action: "sent",
        outcome: Outcome::Success,
        actor_id: "notification-controller",
        resource_type: "NotificationRequest",
        severity: "info",
        duration_ms: Some(212),
        error_code: None,
        data: r#"{"event_type":"notification.message.sent","channel":"slack","subject":"Rollback of {application} failed","priority":"high","recipients":["#payments-on-call"]}"#,
    },
];

const SIGNALS: [&str; 8] = [
    "KubePodCrashLooping",
    "KubeDeploymentReplicasMismatch",
    "KubeContainerWaiting",
    "KubePersistentVolumeFillingUp",
    "KubeJobFailed",
    "KubeHpaMaxedOut",
    "CPUThrottlingHigh",
    "TargetDown",
];

const APPLICATIONS: [&str; 3] = ["payment-api", "ledger-worker", "checkout-frontend"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_contents_are_json_of_their_events_type() {
        let mut stories = Stories::new(Payloads::generated(), "0", 1, 4);
        for number in 0..100 {
            let event = stories.event(number);
            let mut data = Vec::new();
            event.event_data.append_to(&mut data).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&data).unwrap();
            assert_eq!(value["event_type"], event.event_type);
        }
    }

    #[test]
    fn six_events_share_a_correlation_id_and_a_number_is_an_event() {
        let mut stories = Stories::new(Payloads::generated(), "0", 1, 4);
        let ids: Vec<_> =
            (0..13).map(|number| stories.event(number).correlation_id.to_owned()).collect();
        assert_eq!(ids[0], ids[5]);
        assert_ne!(ids[5], ids[6]);
        assert_eq!(ids[6], ids[11]);
        assert_eq!(stories.event(3).correlation_id, ids[0]);
    }

    #[test]
    fn producers_go_through_all_lines_together() {
        let payloads = Payloads::of_lines("{\"a\":0}\n{\"a\":1}\n {\"a\":2}\n{\"a\":3}\n").unwrap();
        let mut seen = Vec::new();
        for producer in 0..2 {
            let mut stories = Stories::new(payloads.clone(), "0", producer, 2);
            for number in 0..2 {
                stories.event(number).event_data.append_to(&mut seen).unwrap();
            }
        }
        assert_eq!(seen, br#"{"a":0}{"a":2}{"a":1}{"a":3}"#);
    }

    #[test]
    fn a_line_that_is_no_object_is_named() {
        for (text, message) in [
            ("{}\n[1]\n", "line 2: "),
            ("{}\n{}\n{\"a\":\n", "line 3: "),
            ("{}\n\n{}", "line 2: "),
            ("", "no line"),
        ] {
            let problem = Payloads::of_lines(text).unwrap_err();
            assert!(problem.contains(message), "{problem}");
        }
    }
}
