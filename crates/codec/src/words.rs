//! Enums that are words on the wire: a category, an outcome.
//!
//! Invariant: what is displayed is what is written and read. Limit: a category that isn't one of
//! ours borrows its text, so that it can be read from text that stays, not from a stream.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::Problem;
use crate::field::shortened;

/// The domain that an event belongs to: a known one, or one of the caller's own.
///
/// Two are equal if their texts are.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Category<'a> {
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
    /// Any other: a lower-case letter, then at most 49 lower-case letters, digits, `_`, `-` or `.`.
    /// It is checked when the event is recorded; [`parse`](Category::parse) checks at once.
    ///
    /// A DataStorage that knows only the categories above refuses the event.
    Other(&'a str),
}

impl Category<'static> {
    /// Every known category, in the order of the API.
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
}

impl<'a> Category<'a> {
    /// The category of this text: a known one, or a well-formed other.
    ///
    /// ```
    /// use ledgerline_codec::Category;
    ///
    /// assert_eq!(Category::parse("gateway"), Ok(Category::Gateway));
    /// assert_eq!(Category::parse("billing"), Ok(Category::Other("billing")));
    /// assert!(Category::parse("Billing!").is_err());
    /// ```
    ///
    /// # Errors
    /// [`Problem::NotACategory`]: it is malformed.
    pub fn parse(text: &'a str) -> Result<Self, Problem> {
        let category = Self::from(text);
        category.check()?;
        Ok(category)
    }

    /// The category's text on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
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
            Self::Other(text) => text,
        }
    }

    /// Whether it is one of [`ALL`](Category::ALL).
    #[must_use]
    pub fn is_known(self) -> bool {
        Category::ALL.contains(&self)
    }

    /// Checks that the text of another category is well-formed.
    #[inline(always)]
    pub(crate) fn check(self) -> Result<(), Problem> {
        match self {
            Self::Other(text) => check_other(text),
            _ => Ok(()),
        }
    }
}

fn check_other(text: &str) -> Result<(), Problem> {
    let is_well_formed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.')
    };
    let begins_with_letter = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if begins_with_letter && text.len() <= CATEGORY_CHARS_MAX && text.bytes().all(is_well_formed) {
        return Ok(());
    }
    Err(Problem::NotACategory { given: shortened(text) })
}

/// A known category, or any other, unchecked until the event is recorded.
impl<'a> From<&'a str> for Category<'a> {
    fn from(text: &'a str) -> Self {
        let known = Category::ALL.into_iter().find(|category| category.as_str() == text);
        known.unwrap_or(Self::Other(text))
    }
}

impl PartialEq for Category<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Category<'_> {}

impl Hash for Category<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Category<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for Category<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Another category than the known ones must lie in the input as it is: a stream has nothing that
/// it could borrow.
impl<'a, 'de: 'a> Deserialize<'de> for Category<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing<'a>(PhantomData<&'a ()>);

        impl<'a, 'de: 'a> Visitor<'de> for Borrowing<'a> {
            type Value = Category<'a>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a category")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Category::parse(text).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let known = Category::ALL.into_iter().find(|category| category.as_str() == text);
                known.ok_or_else(|| E::custom("a category that isn't known can't be borrowed here"))
            }
        }

        deserializer.deserialize_str(Borrowing(PhantomData))
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
        const ALLOWED: [&str; 3] =
            [Outcome::Success.as_str(), Outcome::Failure.as_str(), Outcome::Pending.as_str()];
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| Problem::NotInSet { given: shortened(text), allowed: &ALLOWED })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

/// Reads what its text says.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = Problem>,
    D: Deserializer<'de>,
{
    struct Reading<T>(PhantomData<T>);

    impl<T: FromStr<Err = Problem>> Visitor<'_> for Reading<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Reading(PhantomData))
}

/// As many as its column has.
const CATEGORY_CHARS_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_categories_are_read_back_from_what_they_show() {
        for category in Category::ALL {
            assert_eq!(Category::parse(&category.to_string()), Ok(category));
            assert!(category.is_known() && Category::Other(category.as_str()).is_known());
        }
    }

    #[test]
    fn another_category_is_well_formed_or_refused() {
        let longest = "x".repeat(50);
        for text in ["a", "billing", "user-management", "iam.v2_beta", &longest] {
            assert_eq!(Category::parse(text), Ok(Category::Other(text)));
        }
        let too_long = "x".repeat(51);
        for text in ["", "1a", "-a", "Billing", "a b", "a\"b", "a\0", "caf\u{e9}", &too_long] {
            let problem = Problem::NotACategory { given: shortened(text) };
            assert_eq!(Category::parse(text), Err(problem));
        }
    }

    #[test]
    fn words_pass_through_serde() {
        let outcomes = serde_json::to_string(&Outcome::ALL).unwrap();
        assert_eq!(outcomes, r#"["success","failure","pending"]"#);
        assert_eq!(serde_json::from_str::<[Outcome; 3]>(&outcomes).unwrap(), Outcome::ALL);
        let categories = [Category::Gateway, Category::Other("billing")];
        let text = serde_json::to_string(&categories).unwrap();
        assert_eq!(text, r#"["gateway","billing"]"#);
        assert_eq!(serde_json::from_str::<[Category<'_>; 2]>(&text).unwrap(), categories);
        let error = serde_json::from_str::<Category<'_>>("\"Bill\"").unwrap_err().to_string();
        assert!(error.contains("\"Bill\""), "{error}");
        let streamed = |text: &'static str| {
            Category::deserialize(&mut serde_json::Deserializer::from_reader(text.as_bytes()))
        };
        assert_eq!(streamed("\"gateway\"").unwrap(), Category::Gateway);
        assert!(streamed("\"billing\"").is_err());
    }
}
