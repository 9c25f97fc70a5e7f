//! What a caller records: borrowed fields, so that recording copies each byte once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use uuid::Uuid;

use crate::field::shortened;
use crate::{EventData, Problem, Timestamp};

/// One audit event, borrowed from its caller for the length of one call.
///
/// The required fields are the arguments of [`Event::new`]; the others start absent and are plain
/// public fields. Nothing is checked here: [`encode`](crate::encode) checks every field.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened, dotted, emitter first: `gateway.signal.received`.
    pub event_type: &'a str,
    /// The domain that the event belongs to.
    pub event_category: Category,
    /// The action within the domain: `received`.
    pub event_action: &'a str,
    /// How the action ended.
    pub event_outcome: Outcome,
    /// What joins the events of one story, across services.
    pub correlation_id: &'a str,
    /// The event's own content: a JSON object.
    pub event_data: &'a dyn EventData,
    /// Version of the event's schema. Absent: `"1.0"`.
    pub version: Option<&'a str>,
    /// When it happened. Absent: the moment of recording.
    pub event_timestamp: Option<Timestamp>,
    /// What kind of actor: `service`, `user`.
    pub actor_type: Option<&'a str>,
    /// Who acted.
    pub actor_id: Option<&'a str>,
    /// From which address.
    pub actor_ip: Option<IpAddr>,
    /// What kind of thing was acted upon.
    pub resource_type: Option<&'a str>,
    /// Which thing was acted upon.
    pub resource_id: Option<&'a str>,
    /// Kubernetes namespace.
    pub namespace: Option<&'a str>,
    /// Kubernetes cluster.
    pub cluster_id: Option<&'a str>,
    /// Free text, at most 20 characters: `info`, `critical`.
    pub severity: Option<&'a str>,
    /// How long the action took, in milliseconds.
    pub duration_ms: Option<i32>,
    /// The event that caused this one.
    pub parent_event_id: Option<Uuid>,
    /// When the parent happened; spares the store a search.
    pub parent_event_date: Option<Timestamp>,
    /// Short code of what went wrong.
    pub error_code: Option<&'a str>,
    /// What went wrong, in words.
    pub error_message: Option<&'a str>,
    /// How long to keep the event, in days, 1 to 2555. Absent: 2555 (seven years).
    pub retention_days: Option<u16>,
    /// Whether the content needs protection. Absent: `false`.
    pub is_sensitive: Option<bool>,
}

impl<'a> Event<'a> {
    /// An event with its required fields; everything else is absent.
    #[must_use]
    pub fn new(
        event_type: &'a str,
        event_category: Category,
        event_action: &'a str,
        event_outcome: Outcome,
        correlation_id: &'a str,
        event_data: &'a dyn EventData,
    ) -> Self {
        Self {
            event_type,
            event_category,
            event_action,
            event_outcome,
            correlation_id,
            event_data,
            version: None,
            event_timestamp: None,
            actor_type: None,
            actor_id: None,
            actor_ip: None,
            resource_type: None,
            resource_id: None,
            namespace: None,
            cluster_id: None,
            severity: None,
            duration_ms: None,
            parent_event_id: None,
            parent_event_date: None,
            error_code: None,
            error_message: None,
            retention_days: None,
            is_sensitive: None,
        }
    }
}

/// Names the event, and leaves its content out: contents don't belong in logs.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Event")
            .field("event_type", &self.event_type)
            .field("event_category", &self.event_category)
            .field("event_action", &self.event_action)
            .field("event_outcome", &self.event_outcome)
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}

/// The domain that an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    /// Signals coming in.
    Gateway,
    /// Messages to people.
    Notification,
    /// Root cause analysis.
    Analysis,
    /// What the language model's agent did.
    AiAgent,
    /// Enriching and classifying signals.
    SignalProcessing,
    /// The workflow catalogue.
    Workflow,
    /// Running workflows.
    WorkflowExecution,
    /// The life of a remediation.
    Orchestration,
    /// Human decisions.
    Approval,
    /// Whether a remediation helped.
    Effectiveness,
    /// The kinds of action there are.
    ActionType,
    /// The API that people use.
    ApiFrontend,
    /// Access and abuse.
    Security,
    /// Sessions of agents.
    AgentSession,
}

impl Category {
    /// Every category, in the order of the API.
    pub const ALL: [Self; 14] = [
        Self::Gateway,
        Self::Notification,
        Self::Analysis,
        Self::AiAgent,
        Self::SignalProcessing,
        Self::Workflow,
        Self::WorkflowExecution,
        Self::Orchestration,
        Self::Approval,
        Self::Effectiveness,
        Self::ActionType,
        Self::ApiFrontend,
        Self::Security,
        Self::AgentSession,
    ];

    /// The category's text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Notification => "notification",
            Self::Analysis => "analysis",
            Self::AiAgent => "aiagent",
            Self::SignalProcessing => "signalprocessing",
            Self::Workflow => "workflow",
            Self::WorkflowExecution => "workflowexecution",
            Self::Orchestration => "orchestration",
            Self::Approval => "approval",
            Self::Effectiveness => "effectiveness",
            Self::ActionType => "actiontype",
            Self::ApiFrontend => "apifrontend",
            Self::Security => "security",
            Self::AgentSession => "agentsession",
        }
    }
}

impl FromStr for Category {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const ALLOWED: [&str; 14] = names_of_categories();
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == text)
            .ok_or_else(|| Problem::NotInSet { given: shortened(text), allowed: &ALLOWED })
    }
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what it should.
    Success,
    /// It did not.
    Failure,
    /// It hasn't ended yet.
    Pending,
}

impl Outcome {
    /// Every outcome, in the order of the API.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Pending];

    /// The outcome's text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Pending => "pending",
        }
    }
}

impl FromStr for Outcome {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        const ALLOWED: [&str; 3] = names_of_outcomes();
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| Problem::NotInSet { given: shortened(text), allowed: &ALLOWED })
    }
}

const fn names_of_categories() -> [&'static str; 14] {
    let mut names = [""; 14];
    let mut at = 0;
    while at < names.len() {
        names[at] = Category::ALL[at].as_str();
        at += 1;
    }
    names
}

const fn names_of_outcomes() -> [&'static str; 3] {
    let mut names = [""; 3];
    let mut at = 0;
    while at < names.len() {
        names[at] = Outcome::ALL[at].as_str();
        at += 1;
    }
    names
}
