//! The kinds of events in a story, modelled on an operator that remedies Kubernetes alerts.
//!
//! Invariant: encoded, they have some 700 bytes on average. Limit: fixed texts with two holes.

use ledgerline::{Category, Outcome};

/// What events of one type have in common.
pub(super) struct Kind {
    pub(super) event_type: &'static str,
    pub(super) category: Category<'static>,
    pub(super) action: &'static str,
    pub(super) outcome: Outcome,
    pub(super) actor_id: &'static str,
    pub(super) resource_type: &'static str,
    pub(super) severity: Option<&'static str>,
    pub(super) duration_ms: Option<i32>,
    pub(super) error_code: Option<&'static str>,
    /// The contents, with single quotes for double ones, and holes for a signal and its subject.
    pub(super) data: &'static str,
}

/// A story, from the signal to the message.
pub(super) const KINDS: [Kind; 6] = [
    Kind {
        event_type: "gateway.signal.received",
        category: Category::Gateway,
        action: "received",
        outcome: Outcome::Success,
        actor_id: "system:serviceaccount:monitoring:alertmanager-main",
        resource_type: "Signal",
        severity: Some("critical"),
        duration_ms: None,
        error_code: None,
        data: "{'event_type':'gateway.signal.received','signal_type':'alert',\
               'signal_name':'{signal}','namespace':'payments',\
               'fingerprint':'4be1c0a7d2f39e58'}",
    },
    Kind {
        event_type: "signalprocessing.phase.transition",
        category: Category::SignalProcessing,
        action: "phase_transition",
        outcome: Outcome::Success,
        actor_id: "signalprocessing-controller",
        resource_type: "SignalProcessing",
        severity: None,
        duration_ms: Some(38),
        error_code: None,
        data: "{'event_type':'signalprocessing.phase.transition','phase':'Classifying',\
               'signal':'{signal}'}",
    },
    Kind {
        event_type: "aianalysis.analysis.completed",
        category: Category::Analysis,
        action: "analysis_complete",
        outcome: Outcome::Success,
        actor_id: "aianalysis-controller",
        resource_type: "AIAnalysis",
        severity: None,
        duration_ms: Some(41_209),
        error_code: None,
        data: "{'event_type':'aianalysis.analysis.completed','analysis_name':'{application}',\
               'namespace':'payments','phase':'Completed','approval_required':true,\
               'degraded_mode':false,'warnings_count':1}",
    },
    Kind {
        event_type: "orchestrator.approval.requested",
        category: Category::Orchestration,
        action: "approval_requested",
        outcome: Outcome::Pending,
        actor_id: "remediationorchestrator-controller",
        resource_type: "RemediationApprovalRequest",
        severity: Some("warning"),
        duration_ms: None,
        error_code: None,
        data: "{'event_type':'orchestrator.approval.requested','rr_name':'rr-{application}',\
               'namespace':'payments'}",
    },
    Kind {
        event_type: "workflowexecution.workflow.failed",
        category: Category::WorkflowExecution,
        action: "failed",
        outcome: Outcome::Failure,
        actor_id: "workflowexecution-controller",
        resource_type: "WorkflowExecution",
        severity: Some("critical"),
        duration_ms: Some(162_004),
        error_code: Some("ERR_PIPELINE_FAILED"),
        data: "{'event_type':'workflowexecution.workflow.failed',\
               'workflow_id':'rollback','workflow_version':'2.1.0',\
               'target_resource':'deployment/{application}','phase':'Failed',\
               'container_image':'run:2','execution_name':'we-1'}",
    },
    Kind {
        event_type: "notification.message.sent",
        category: Category::Notification,
        action: "sent",
        outcome: Outcome::Success,
        actor_id: "notification-controller",
        resource_type: "NotificationRequest",
        severity: None,
        duration_ms: Some(212),
        error_code: None,
        data: "{'event_type':'notification.message.sent','notification_id':'nr-1',\
               'channel':'slack','subject':'{application}','body':'Failed',\
               'priority':'P1','type':'status'}",
    },
];

pub(super) const SIGNALS: [&str; 8] = [
    "KubePodCrashLooping",
    "KubeDeploymentReplicasMismatch",
    "KubeContainerWaiting",
    "KubePersistentVolumeFillingUp",
    "KubeJobFailed",
    "KubeHpaMaxedOut",
    "CPUThrottlingHigh",
    "TargetDown",
];

pub(super) const APPLICATIONS: [&str; 3] = ["payment-api", "ledger-worker", "checkout-frontend"];
