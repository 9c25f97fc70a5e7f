//! Refusals as RFC 7807 problem documents.
//!
//! Invariant: every answer that isn't a success goes through [`Problem`], so that each has a type,
//! a detail that names what was wrong, and the headers that its status calls for. Limit: only the
//! detail may repeat what was sent; the other members are words and numbers of ours.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use ledgerline_codec::FieldError;
use serde::Serialize;
use uuid::Uuid;

use crate::storage::{StorageError, WriteError};

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Box<str>,
    pub(crate) index: Option<usize>,
    pub(crate) field: Option<&'static str>,
    reason: Option<&'static str>,
    /// The bound that was broken, as a number.
    pub(crate) limit: Option<i64>,
    pub(crate) event_id: Option<Uuid>,
    allow: Option<&'static str>,
}

/// What kind of refusal: its status, the end of its type URI, and its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Validation,
    InvalidRequest,
    BatchSizeExceeded,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    EventIdConflict,
    RequestTooLarge,
    UnsupportedMediaType,
    Internal,
    Unavailable,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            index: None,
            field: None,
            reason: None,
            limit: None,
            event_id: None,
            allow: None,
        }
    }

    /// Something that isn't served here, with the methods that are.
    pub(crate) fn method_not_allowed(method: &str, allow: &'static str) -> Self {
        let detail = format!("the method {method:?} is not allowed here, only {allow}");
        Self { allow: Some(allow), ..Self::new(Kind::MethodNotAllowed, detail) }
    }

    /// Names the event, by its place in the request from 0.
    pub(crate) fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Names the field or parameter.
    pub(crate) fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// Names the rule that was broken in one word, which clients and operators may compare.
    pub(crate) fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Names the bound that was broken.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.limit = i64::try_from(limit).ok();
        self
    }

    /// A field of an event that can't be stored.
    pub(crate) fn invalid(index: usize, error: &FieldError) -> Self {
        let detail = format!("event {index}: {error}");
        let problem = Self::new(Kind::Validation, detail).at(index).field(error.field.name());
        Self { limit: error.problem.limit(), ..problem.because(error.problem.reason()) }
    }

    pub(crate) fn conflict(index: usize, event_id: Uuid) -> Self {
        let detail =
            format!("event {index}: event_id {event_id} is taken by an event with other content");
        let problem = Self::new(Kind::EventIdConflict, detail).at(index).field("event_id");
        Self { event_id: Some(event_id), ..problem.because("conflict") }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.kind.describe().0
    }

    /// The rule that was broken; where none has a name, what kind of refusal it is.
    pub(crate) const fn reason(&self) -> &'static str {
        match self.reason {
            Some(reason) => reason,
            None => self.kind.describe().1,
        }
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let (status, slug, title) = self.kind.describe();
        let document = Document {
            r#type: &format!("https://kubernaut.ai/problems/{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            index: self.index,
            field: self.field,
            reason: self.reason,
            limit: self.limit,
            event_id: self.event_id.map(|id| id.to_string()),
        };
        let body = serde_json::to_vec(&document).expect("a struct of texts and numbers serialises");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.kind == Kind::Unavailable {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

impl Kind {
    const fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Validation => (StatusCode::BAD_REQUEST, "validation-error", "Validation Error"),
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request", "Invalid Request"),
            Self::BatchSizeExceeded => {
                (StatusCode::BAD_REQUEST, "batch-size-exceeded", "Batch Size Exceeded")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not Found"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method Not Allowed")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "Request Timeout")
            }
            Self::EventIdConflict => {
                (StatusCode::CONFLICT, "event-id-conflict", "Event Id Conflict")
            }
            Self::RequestTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "Request Too Large")
            }
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Unsupported Media Type",
            ),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "database_error", "Database Error")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service Unavailable")
            }
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let kind = if error.is_temporary() { Kind::Unavailable } else { Kind::Internal };
        Self::new(kind, error.to_string()).because("storage")
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::Conflict { index, event_id } => Self::conflict(index, event_id),
            WriteError::UnknownParent { index, .. } => {
                let problem = Self::new(Kind::Validation, detail).at(index);
                problem.field("parent_event_id").because("unknown_parent")
            }
            WriteError::QueueFull { limit } => {
                Self::new(Kind::Unavailable, detail).because("queue_full").limit(limit)
            }
            WriteError::Stopped => Self::new(Kind::Unavailable, detail).because("stopping"),
            WriteError::Storage(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// How long a client is asked to wait after a 503. Queues empty within a second or not at all.
const RETRY_AFTER_S: &str = "1";
