//! A strict JSON scanner (RFC 8259): finds where values end, and what in them can't be stored.
//!
//! One pass, no recursion, no allocation: a stack of bits remembers which levels are objects.
//! Invariant: it never panics, and what it lets through is exactly what serde_json reads, less what
//! [`Rules`] forbid. Limits: [`LEVELS_MAX`] levels, since the stack has that many bits; the text
//! must be UTF-8, which its callers see to.

use crate::Problem;
use crate::escape::find_special;

/// What a scan refuses beside what isn't JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Levels of objects and arrays allowed, counted together; at most [`LEVELS_MAX`].
    pub(crate) levels_max: u32,
    /// Whether to refuse what is JSON, but can't be stored: escapes of U+0000 and of half surrogate
    /// pairs, and numbers that neither a double nor a `numeric` can hold.
    pub(crate) must_be_storable: bool,
}

/// A place in a JSON text, moving forward.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    rules: Rules,
    /// How many containers are open.
    levels: u32,
    /// One bit for each of them, the innermost lowest: whether it is an object.
    objects: u128,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of the text.
    pub(crate) const fn new(text: &'a [u8], rules: Rules) -> Self {
        debug_assert!(rules.levels_max <= LEVELS_MAX);
        Self { text, at: 0, rules, levels: 0, objects: 0 }
    }

    /// Steps over one value.
    pub(crate) fn value(&mut self) -> Result<(), Problem> {
        loop {
            let is_open = match self.peek() {
                b'{' => self.open_object()?,
                b'[' => self.open_array()?,
                _ => {
                    self.scalar()?;
                    false
                }
            };
            // An open container goes on with its first value; everything else ends a value.
            if !is_open && !self.next_value()? {
                return Ok(());
            }
        }
    }

    /// Steps over one string.
    pub(crate) fn string(&mut self) -> Result<(), Problem> {
        self.at += 1;
        loop {
            self.at = find_special(self.text, self.at);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ if self.at >= self.text.len() => return Err(self.expected("a closing quote")),
                _ => return Err(self.expected("an escape instead of a control character")),
            }
        }
    }

    /// Steps over whitespace.
    #[inline]
    pub(crate) fn whitespace(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Steps over the byte here, which must have been looked at.
    #[cfg(feature = "parse")]
    pub(crate) const fn advance(&mut self) {
        self.at += 1;
    }

    /// Steps over the byte, or says that it was expected.
    pub(crate) fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), Problem> {
        if self.peek() != byte {
            return Err(self.expected(name));
        }
        self.at += 1;
        Ok(())
    }

    /// Steps over whitespace to the end of the text.
    pub(crate) fn end(&mut self) -> Result<(), Problem> {
        self.whitespace();
        if self.at < self.text.len() { Err(self.expected("the end of the text")) } else { Ok(()) }
    }

    /// The byte here; 0, which JSON has no use for, at the end.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// Where the scanner stands.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Goes back, or on, to a place where a value starts, and follows other rules from there.
    #[cfg(feature = "parse")]
    pub(crate) const fn restart(&mut self, at: usize, rules: Rules) {
        *self = Self { text: self.text, at, rules, levels: 0, objects: 0 };
    }

    /// The complaint that something else was expected here.
    pub(crate) const fn expected(&self, expected: &'static str) -> Problem {
        Problem::InvalidJson { offset: self.at, expected }
    }

    /// Opens an object and goes to its first value; false if it is empty, and so closed again.
    fn open_object(&mut self) -> Result<bool, Problem> {
        self.open(1)?;
        if self.peek() == b'}' {
            self.close();
            return Ok(false);
        }
        self.key()?;
        Ok(true)
    }

    /// Opens an array and goes to its first value; false if it is empty, and so closed again.
    fn open_array(&mut self) -> Result<bool, Problem> {
        self.open(0)?;
        if self.peek() == b']' {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    fn open(&mut self, is_object: u128) -> Result<(), Problem> {
        if self.levels == self.rules.levels_max {
            return Err(Problem::TooDeep { max: self.rules.levels_max as usize });
        }
        self.levels += 1;
        self.objects = self.objects << 1 | is_object;
        self.at += 1;
        self.whitespace();
        Ok(())
    }

    fn close(&mut self) {
        self.levels -= 1;
        self.objects >>= 1;
        self.at += 1;
    }

    /// After a value: closes the containers that end here and goes to the next value; false if
    /// there is none.
    fn next_value(&mut self) -> Result<bool, Problem> {
        while self.levels > 0 {
            self.whitespace();
            let is_object = self.objects & 1 == 1;
            match (self.peek(), is_object) {
                (b',', true) => {
                    self.at += 1;
                    self.whitespace();
                    self.key()?;
                    return Ok(true);
                }
                (b',', false) => {
                    self.at += 1;
                    self.whitespace();
                    return Ok(true);
                }
                (b'}', true) | (b']', false) => self.close(),
                (_, true) => return Err(self.expected("a comma or the end of the object")),
                (_, false) => return Err(self.expected("a comma or the end of the array")),
            }
        }
        Ok(false)
    }

    /// Steps over a key and its colon, to the value.
    fn key(&mut self) -> Result<(), Problem> {
        if self.peek() != b'"' {
            return Err(self.expected("a key"));
        }
        self.string()?;
        self.colon()
    }

    /// Steps over the colon after a key, to the value.
    pub(crate) fn colon(&mut self) -> Result<(), Problem> {
        self.whitespace();
        self.expect(b':', "a colon")?;
        self.whitespace();
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Problem> {
        match self.peek() {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(self.expected("a value")),
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Problem> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(literal) {
            return Err(self.expected("a value"));
        }
        self.at += literal.len();
        Ok(())
    }

    /// RFC 8259, section 6.
    fn number(&mut self) -> Result<(), Problem> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            _ => _ = self.digits()?,
        }
        let mut decimals = 0;
        if self.peek() == b'.' {
            self.at += 1;
            decimals = self.digits()?;
        }
        let exponent_at = self.at + 1;
        let has_exponent = matches!(self.peek(), b'e' | b'E');
        if has_exponent {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        let is_plain = !has_exponent && self.at - start <= PLAIN_NUMBER_LEN_MAX;
        if is_plain || !self.rules.must_be_storable {
            return Ok(());
        }
        let exponent = if has_exponent { &self.text[exponent_at..self.at] } else { b"0" };
        if !is_storable(&self.text[start..self.at], decimals, exponent) {
            return Err(Problem::NumberOutOfRange { offset: start });
        }
        Ok(())
    }

    /// Steps over at least one digit; says how many there were.
    fn digits(&mut self) -> Result<usize, Problem> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(self.at - start) }
    }

    /// RFC 8259, section 7.
    fn escape(&mut self) -> Result<(), Problem> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => {
                let unit = self.hex_unit()?;
                if self.rules.must_be_storable { self.check_unit(unit) } else { Ok(()) }
            }
            _ => Err(self.expected("the letter of an escape")),
        }
    }

    /// Checks that a UTF-16 unit is a character, with the escape that follows if it needs one.
    fn check_unit(&mut self, unit: u16) -> Result<(), Problem> {
        match unit {
            0 => Err(Problem::NulEscape),
            0xd800..=0xdbff => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                if !rest.starts_with(b"\\u") {
                    return Err(Problem::LoneSurrogate);
                }
                self.at += 1;
                match self.hex_unit()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(Problem::LoneSurrogate),
                }
            }
            0xdc00..=0xdfff => Err(Problem::LoneSurrogate),
            _ => Ok(()),
        }
    }

    /// Steps over the letter of a `\u` escape and its four digits.
    fn hex_unit(&mut self) -> Result<u16, Problem> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let Some(digit) = char::from(self.peek()).to_digit(16) else {
                return Err(self.expected("a hexadecimal digit"));
            };
            unit = unit << 4 | digit as u16;
        }
        self.at += 1;
        Ok(unit)
    }
}

/// Whether a number fits both a double, which services in between read numbers as, and PostgreSQL's
/// `numeric`, which its `jsonb` keeps them as.
#[cold]
fn is_storable(number: &[u8], decimals: usize, exponent: &[u8]) -> bool {
    let value = std::str::from_utf8(number).ok().and_then(|text| text.parse::<f64>().ok());
    let exponent = std::str::from_utf8(exponent).ok().and_then(|text| text.parse::<i64>().ok());
    let (Some(value), Some(exponent)) = (value, exponent) else { return false };
    value.is_finite()
        && exponent <= NUMERIC_DECIMALS_MAX
        && (decimals as i64).saturating_sub(exponent) <= NUMERIC_DECIMALS_MAX
}

/// The most levels that any scan can follow: the bits of its stack.
pub(crate) const LEVELS_MAX: u32 = u128::BITS;

/// A number without exponent can't be out of range up to this length; the largest double has 309
/// digits.
const PLAIN_NUMBER_LEN_MAX: usize = 300;

/// Decimal places that PostgreSQL's `numeric` can keep.
const NUMERIC_DECIMALS_MAX: i64 = 16_383;

#[cfg(test)]
pub(crate) mod tests;
