//! The events that `demo` and `load` record: six to a story, as remediations tell them.
//!
//! Invariant: an event is a function of its number, so that a refused one can be tried again, and
//! making one allocates nothing: its contents are prepared beforehand, its fields are borrowed.
//! Limit: contents repeat, only correlation ids are new for each story.

#[cfg(test)]
mod contract;
mod kinds;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ledgerline::{Event, EventData, Json};

use self::kinds::{APPLICATIONS, KINDS, SIGNALS};
use crate::args::Usage;

/// Ready JSON text, owned; checked each time it is used, as a caller's own text would be.
type Payload = Json<String>;

/// Contents that events take turns with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Payloads {
    texts: Arc<[Payload]>,
    /// Whether a text belongs to the kind of event at its place.
    has_kinds: bool,
}

impl Payloads {
    /// The lines of a file, or contents of our own.
    pub(crate) fn load(input: Option<&Path>) -> Result<Self, Usage> {
        let Some(path) = input else { return Ok(Self::generated()) };
        let usage = |problem| Usage(format!("--input {}: {problem}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
        Self::of_lines(&text).map_err(usage)
    }

    fn of_lines(text: &str) -> Result<Self, String> {
        let mut scratch = Vec::new();
        let mut payloads = Vec::new();
        for (index, line) in text.lines().enumerate() {
            scratch.clear();
            let checked = Json(line).append_to(&mut scratch);
            checked.map_err(|error| format!("line {}: {error}", index + 1))?;
            payloads.push(Json(line.to_owned()));
        }
        if payloads.is_empty() {
            return Err("the file has no line".to_owned());
        }
        Ok(Self { texts: payloads.into(), has_kinds: false })
    }

    /// Each kind of event in each variant, the kinds in the order of a story.
    fn generated() -> Self {
        let subjects = SIGNALS.iter().zip(APPLICATIONS.iter().cycle());
        let payloads = subjects.flat_map(|(signal, application)| {
            KINDS.iter().map(|kind| {
                let data = kind.data.replace('\'', "\"").replace("{signal}", signal);
                Json(data.replace("{application}", application))
            })
        });
        Self { texts: payloads.collect(), has_kinds: true }
    }

    /// The text of a producer's event: of the event's kind, or whichever comes next in the file,
    /// through which the producers go together.
    fn text(&self, number: u64, producer: u64, producers: u64) -> &Payload {
        let place = if self.has_kinds {
            number
        } else {
            number.wrapping_mul(producers).wrapping_add(producer)
        };
        &self.texts[(place % self.texts.len() as u64) as usize]
    }
}

/// One producer's events.
#[derive(Debug)]
pub(crate) struct Stories {
    payloads: Payloads,
    /// Which producer, of how many.
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
        let payload = self.payloads.text(number, self.producer, self.producers);
        let mut event = Event::new(kind.event_type, kind.category, kind.outcome)
            .with_action(kind.action)
            .with_correlation_id(&self.correlation_id)
            .with_data(payload)
            .with_actor_id(kind.actor_id)
            .with_resource_type(kind.resource_type)
            .with_resource_id(&self.correlation_id)
            .with_namespace("payments");
        event.severity = kind.severity;
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
