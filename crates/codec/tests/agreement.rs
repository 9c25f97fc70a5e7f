//! A record is, byte for byte, what serde_json prints for the same fields in the same order.
//!
//! `LEDGERLINE_CASES` sets how many events are tried, `LEDGERLINE_SEED` repeats a failed run.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ledgerline_codec::{
    Category, Event, Identity, Json, Outcome, Timestamp, Uuid, encode, encode_portable,
};
use serde::Serialize;
use serde_json::Value;

const CASES: u64 = if cfg!(miri) { 50 } else { 5_000 };

/// The fields in the order of a record.
#[derive(Serialize)]
struct Wire<'a> {
    event_id: String,
    producer: &'a str,
    producer_seq: u64,
    version: &'a str,
    event_type: &'a str,
    event_timestamp: String,
    event_category: &'a str,
    event_action: &'a str,
    event_outcome: &'a str,
    correlation_id: &'a str,
    #[serde(flatten)]
    optional: Optional<'a>,
    retention_days: u16,
    is_sensitive: bool,
    event_data: &'a Value,
}

/// Those of them that are left out when they are absent.
#[derive(Serialize)]
struct Optional<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_event_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
}

#[test]
fn records_are_what_serde_json_prints() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let cases = number("LEDGERLINE_CASES").unwrap_or(CASES);
    let seed = number("LEDGERLINE_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("seed {seed}");
    let mut random = Random(seed);
    let (mut bytes, mut printed) = (0, Vec::new());
    for case in 0..cases {
        let texts: [String; 14] = std::array::from_fn(|place| random.text(TEXT_LENS[place]));
        let (data, data_text) = random.data();
        let data_json = Json(&data_text);
        let (event, identity) = random.event(&texts, &data_json);
        printed.clear();
        printed.push(b',');
        serde_json::to_writer(&mut printed, &wire(&event, &identity, &data)).unwrap();

        // With room and without: the buffer grows in the middle of a field.
        let mut records = Vec::with_capacity(random.below(2_048) as usize);
        encode(&event, &identity, &mut records).unwrap();
        assert!(records == printed, "case {case}\n{}\n{}", text(&records), text(&printed));
        records.clear();
        encode_portable(&event, &identity, &mut records).unwrap();
        assert!(records == printed, "case {case}\n{}\n{}", text(&records), text(&printed));
        bytes += records.len();
    }
    println!("{cases} records of {} bytes on average are the same", bytes as u64 / cases.max(1));
}

fn text(record: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(record)
}

fn wire<'a>(event: &Event<'a>, identity: &Identity<'a>, data: &'a Value) -> Wire<'a> {
    Wire {
        event_id: identity.event_id.to_string(),
        producer: identity.producer,
        producer_seq: identity.producer_seq,
        version: event.version.unwrap_or("1.0"),
        event_type: event.event_type,
        event_timestamp: rfc3339(event.event_timestamp.unwrap_or(identity.now)),
        event_category: event.event_category.as_str(),
        event_action: event.event_action,
        event_outcome: event.event_outcome.as_str(),
        correlation_id: event.correlation_id,
        optional: Optional {
            actor_type: event.actor_type,
            actor_id: event.actor_id,
            actor_ip: event.actor_ip,
            resource_type: event.resource_type,
            resource_id: event.resource_id,
            namespace: event.namespace,
            cluster_id: event.cluster_id,
            severity: event.severity,
            duration_ms: event.duration_ms,
            parent_event_id: event.parent_event_id.map(|id| id.to_string()),
            parent_event_date: event.parent_event_date.map(rfc3339),
            error_code: event.error_code,
            error_message: event.error_message,
        },
        retention_days: event.retention_days.unwrap_or(2_555),
        is_sensitive: event.is_sensitive.unwrap_or(false),
        event_data: data,
    }
}

fn rfc3339(timestamp: Timestamp) -> String {
    let theirs = jiff::Timestamp::from_microsecond(timestamp.micros());
    format!("{:.6}", theirs.expect("jiff goes as far as the generator"))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    /// Mostly plain characters; in every fourth text also some that need an escape or more bytes.
    fn text(&mut self, (chars_min, chars_max): (u64, u64)) -> String {
        const ODD: [char; 14] = [
            '"',
            '\\',
            '\u{1}',
            '\u{8}',
            '\t',
            '\n',
            '\u{c}',
            '\r',
            '\u{1f}',
            '\u{7f}',
            '\u{e9}',
            '\u{2028}',
            '\u{fffd}',
            '\u{10ffff}',
        ];
        let chars = chars_min + self.below(chars_max - chars_min + 1);
        let is_odd = self.below(4) == 0;
        let any = |random: &mut Self| match random.below(if is_odd { 8 } else { 1 }) {
            7 => ODD[random.below(ODD.len() as u64) as usize],
            _ => char::from(b' ' + random.below(2) as u8 * 64 + random.below(26) as u8),
        };
        // The quotation mark lies among the plain ones.
        (0..chars).map(|_| any(self)).map(|char| if is_odd { char } else { plain(char) }).collect()
    }

    fn timestamp(&mut self) -> Timestamp {
        // From the year 1 to the last one but a day, which is as far as jiff goes.
        const FIRST: i64 = -62_135_596_800_000_000;
        const SPAN: u64 = 315_537_804_000_000_000;
        Timestamp::from_micros(FIRST + self.below(SPAN) as i64).expect("a year from 1 to 9999")
    }

    fn value(&mut self, levels: u64) -> Value {
        match self.below(if levels == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => (self.below(2) == 0).into(),
            2 => (self.next() as i64 >> self.below(64)).into(),
            3 => (self.next() as f64 / 1e5).into(),
            6 => (0..self.below(4)).map(|_| self.value(levels - 1)).collect(),
            7 => self.object(levels - 1),
            _ => self.text((0, 40)).into(),
        }
    }

    fn object(&mut self, levels: u64) -> Value {
        let fields = (0..self.below(8)).map(|_| (self.text((0, 20)), self.value(levels)));
        Value::Object(fields.collect())
    }

    fn data(&mut self) -> (Value, String) {
        let data = self.object(3);
        let text = data.to_string();
        (data, text)
    }

    fn event<'a>(
        &mut self,
        texts: &'a [String; 14],
        data: &'a Json<&'a String>,
    ) -> (Event<'a>, Identity<'a>) {
        let mut optional = |place: usize| self.some(|_| texts[place].as_str());
        let mut event = Event::new(&texts[0], Category::Gateway, Outcome::Success)
            .with_action(&texts[1])
            .with_correlation_id(&texts[2])
            .with_data(data);
        event.version = optional(3);
        event.actor_type = optional(4);
        event.actor_id = optional(5);
        event.resource_type = optional(6);
        event.resource_id = optional(7);
        event.namespace = optional(8);
        event.cluster_id = optional(9);
        event.severity = optional(10);
        event.error_code = optional(11);
        event.error_message = optional(12);
        event.event_category = Category::ALL[self.below(14) as usize];
        event.event_outcome = Outcome::ALL[self.below(3) as usize];
        event.event_timestamp = self.some(Self::timestamp);
        event.actor_ip = self.some(Self::address);
        event.duration_ms = self.some(|random| (random.next() as u32 >> 1) as i32);
        event.parent_event_id = self.some(Self::id);
        event.parent_event_date = self.some(Self::timestamp);
        event.retention_days = self.some(|random| 1 + random.below(2_555) as u16);
        event.is_sensitive = self.some(|random| random.below(2) == 0);
        let identity = Identity {
            event_id: self.id(),
            producer: &texts[13],
            producer_seq: self.next() >> self.below(64),
            now: self.timestamp(),
        };
        (event, identity)
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }

    fn address(&mut self) -> IpAddr {
        match self.below(2) {
            0 => Ipv4Addr::from(self.next() as u32).into(),
            _ => Ipv6Addr::from(u128::from(self.next()) << self.below(65)).into(),
        }
    }
}

fn plain(char: char) -> char {
    if char == '"' { '\'' } else { char }
}

/// The fewest and the most characters of each text: every length of copying, and all limits.
const TEXT_LENS: [(u64, u64); 14] = [
    (1, 100),
    (1, 50),
    (1, 255),
    (1, 10),
    (0, 50),
    (0, 255),
    (0, 100),
    (0, 70),
    (0, 40),
    (0, 20),
    (0, 20),
    (0, 9),
    (0, 600),
    (1, 100),
];
