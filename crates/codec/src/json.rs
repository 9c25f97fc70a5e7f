//! A strict JSON scanner (RFC 8259): finds where values end, and what in them can't be stored.
//!
//! One pass, no recursion, no allocation: a stack of bits remembers which levels are objects.
//! Invariant: it never panics, and what it lets through is exactly what serde_json reads, less what
//! [`Rules`] forbid. Limits: [`LEVELS_MAX`] levels, since the stack has that many bits; the text
//! must be UTF-8, which its callers see to.

use crate::Problem;
use crate::special::Specials;

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
    specials: Specials,
    rules: Rules,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of the text.
    pub(crate) const fn new(text: &'a [u8], rules: Rules) -> Self {
        debug_assert!(rules.levels_max <= LEVELS_MAX);
        Self { text, at: 0, specials: Specials::new(), rules }
    }

    /// Steps over one value.
    pub(crate) fn value(&mut self) -> Result<(), Problem> {
        // A copy whose address nobody takes stays in registers; hence all that it calls is inlined
        // or takes what it needs by value.
        let mut scanner = self.clone();
        let result = scanner.walk();
        *self = scanner;
        result
    }

    /// Steps over one string.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Result<(), Problem> {
        let special = self.specials.next(self.text, self.at + 1);
        self.end_string(special)
    }

    /// Steps over whitespace.
    #[inline(always)]
    pub(crate) fn whitespace(&mut self) {
        self.next_byte();
    }

    /// Steps over the colon after a key, to the value.
    #[inline(always)]
    pub(crate) fn colon(&mut self) -> Result<(), Problem> {
        self.whitespace();
        self.expect(b':', "a colon")?;
        self.whitespace();
        Ok(())
    }

    /// Steps over the byte here, which must have been looked at.
    #[cfg(feature = "parse")]
    pub(crate) const fn advance(&mut self) {
        self.at += 1;
    }

    /// Steps over the byte, or says that it was expected.
    #[inline(always)]
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
    #[inline(always)]
    pub(crate) fn peek(&self) -> u8 {
        byte(self.text, self.at)
    }

    /// Where the scanner stands.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Goes back, or on, to a place where a value starts, and follows other rules from there.
    #[cfg(feature = "parse")]
    pub(crate) const fn restart(&mut self, at: usize, rules: Rules) {
        self.at = at;
        self.rules = rules;
    }

    /// The complaint that something else was expected here.
    #[inline]
    pub(crate) const fn expected(&self, expected: &'static str) -> Problem {
        Problem::InvalidJson { offset: self.at, expected }
    }

    /// Steps over whitespace and gives back the byte behind it.
    #[inline(always)]
    fn next_byte(&mut self) -> u8 {
        let byte = self.peek();
        if byte > b' ' {
            return byte;
        }
        self.at = after_whitespace(self.text, self.at);
        self.peek()
    }

    /// Steps over one value and all that is in it. The outer loop is at a value each time, the
    /// inner one at a key or behind a value.
    #[inline(always)]
    fn walk(&mut self) -> Result<(), Problem> {
        let mut open = Open { levels: 0, objects: 0 };
        'values: loop {
            let mut is_at_key = match self.peek() {
                b'"' => self.string().map(|()| false)?,
                b'{' => match self.open(&mut open, true)? {
                    b'}' => self.close(&mut open),
                    _ => true,
                },
                b'[' => match self.open(&mut open, false)? {
                    b']' => self.close(&mut open),
                    _ => continue 'values,
                },
                _ => self.scalar().map(|()| false)?,
            };
            loop {
                if is_at_key && self.key_is_before_value()? {
                    continue 'values;
                }
                if open.levels == 0 {
                    return Ok(());
                }
                let is_in_object = open.objects & 1 == 1;
                is_at_key = match (self.next_byte(), is_in_object) {
                    (b',', _) => {
                        self.at += 1;
                        self.whitespace();
                        if !is_in_object {
                            continue 'values;
                        }
                        true
                    }
                    (b'}', true) | (b']', false) => self.close(&mut open),
                    (_, true) => return Err(self.expected("a comma or the end of the object")),
                    (_, false) => return Err(self.expected("a comma or the end of the array")),
                };
            }
        }
    }

    /// Opens an object or an array; gives back the first byte in it.
    #[inline(always)]
    fn open(&mut self, open: &mut Open, is_object: bool) -> Result<u8, Problem> {
        if open.levels == self.rules.levels_max {
            return Err(Problem::TooDeep { max: self.rules.levels_max as usize });
        }
        open.levels += 1;
        open.objects = open.objects << 1 | u128::from(is_object);
        self.at += 1;
        Ok(self.next_byte())
    }

    /// Closes the innermost container; false, since no key follows.
    #[inline(always)]
    const fn close(&mut self, open: &mut Open) -> bool {
        open.levels -= 1;
        open.objects >>= 1;
        self.at += 1;
        false
    }

    /// Steps over a key and its colon, to the value. Where the value is a string and no whitespace
    /// stands between, steps over that too, and over the members after it as long as they are like
    /// it: most are. Says whether it stands before a value; else it stands behind one.
    #[inline(always)]
    fn key_is_before_value(&mut self) -> Result<bool, Problem> {
        if self.peek() != b'"' {
            return Err(self.expected("a key"));
        }
        loop {
            let end = self.specials.next(self.text, self.at + 1);
            if !matches!(self.text.get(end..end + 3), Some(b"\":\"")) {
                self.end_string(end)?;
                self.colon()?;
                return Ok(true);
            }
            let end = self.specials.next(self.text, end + 3);
            if !matches!(self.text.get(end..end + 3), Some(b"\",\"")) {
                self.end_string(end)?;
                return Ok(false);
            }
            self.at = end + 2;
        }
    }

    /// Steps over the end of a string, whose next special byte is known.
    #[inline(always)]
    fn end_string(&mut self, special: usize) -> Result<(), Problem> {
        self.at = match byte(self.text, special) {
            b'"' => special + 1,
            _ => rest_of_string(self.text, special, self.rules.must_be_storable)?,
        };
        Ok(())
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<(), Problem> {
        self.at = match self.peek() {
            b'-' | b'0'..=b'9' => number(self.text, self.at, self.rules.must_be_storable)?,
            b't' => literal(self.text, self.at, b"true")?,
            b'f' => literal(self.text, self.at, b"false")?,
            b'n' => literal(self.text, self.at, b"null")?,
            _ => return Err(self.expected("a value")),
        };
        Ok(())
    }
}

/// The containers that are open.
struct Open {
    /// How many there are.
    levels: u32,
    /// One bit for each of them, the innermost lowest: whether it is an object.
    objects: u128,
}

#[inline(always)]
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

const fn expected(offset: usize, expected: &'static str) -> Problem {
    Problem::InvalidJson { offset, expected }
}

/// The place of the first byte from here on that is no whitespace.
#[inline(never)]
fn after_whitespace(text: &[u8], mut at: usize) -> usize {
    while matches!(byte(text, at), b' ' | b'\n' | b'\r' | b'\t') {
        at += 1;
    }
    at
}

#[inline(always)]
fn literal(text: &[u8], at: usize, literal: &[u8]) -> Result<usize, Problem> {
    let rest = text.get(at..).unwrap_or_default();
    if !rest.starts_with(literal) {
        return Err(expected(at, "a value"));
    }
    Ok(at + literal.len())
}

/// Steps over a number. RFC 8259, section 6.
#[inline]
fn number(text: &[u8], start: usize, must_be_storable: bool) -> Result<usize, Problem> {
    let mut at = start + usize::from(byte(text, start) == b'-');
    at = if byte(text, at) == b'0' { at + 1 } else { digits(text, at)? };
    let decimals_at = at + 1;
    if byte(text, at) == b'.' {
        at = digits(text, decimals_at)?;
    }
    let decimals = at.saturating_sub(decimals_at);
    let has_exponent = matches!(byte(text, at), b'e' | b'E');
    let exponent_at = at + 1;
    if has_exponent {
        let has_sign = matches!(byte(text, exponent_at), b'+' | b'-');
        at = digits(text, exponent_at + usize::from(has_sign))?;
    }
    let is_plain = !has_exponent && at - start <= PLAIN_NUMBER_LEN_MAX;
    if is_plain || !must_be_storable {
        return Ok(at);
    }
    let exponent = if has_exponent { &text[exponent_at..at] } else { b"0" };
    if !is_storable(&text[start..at], decimals, exponent) {
        return Err(Problem::NumberOutOfRange { offset: start });
    }
    Ok(at)
}

/// Steps over at least one digit.
#[inline]
fn digits(text: &[u8], start: usize) -> Result<usize, Problem> {
    let mut at = start;
    while byte(text, at).is_ascii_digit() {
        at += 1;
    }
    if at == start { Err(expected(at, "a digit")) } else { Ok(at) }
}

/// Steps over the rest of a string, from a special byte that is not known to be its end.
#[inline(never)]
fn rest_of_string(text: &[u8], from: usize, must_be_storable: bool) -> Result<usize, Problem> {
    let mut specials = Specials::new();
    let mut at = from;
    loop {
        match byte(text, at) {
            b'"' => return Ok(at + 1),
            b'\\' => at = escape(text, at, must_be_storable)?,
            _ if at >= text.len() => return Err(expected(at, "a closing quote")),
            _ => return Err(expected(at, "an escape instead of a control character")),
        }
        at = specials.next(text, at);
    }
}

/// Steps over an escape. RFC 8259, section 7.
fn escape(text: &[u8], start: usize, must_be_storable: bool) -> Result<usize, Problem> {
    let at = start + 1;
    match byte(text, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
        b'u' => {
            let (unit, end) = hex_unit(text, at)?;
            if must_be_storable { storable_unit(text, unit, end) } else { Ok(end) }
        }
        _ => Err(expected(at, "the letter of an escape")),
    }
}

/// Checks that a UTF-16 unit is a character, with the escape that follows if it needs one, and
/// steps over that.
fn storable_unit(text: &[u8], unit: u16, at: usize) -> Result<usize, Problem> {
    match unit {
        0 => Err(Problem::NulEscape),
        0xd800..=0xdbff => {
            let rest = text.get(at..).unwrap_or_default();
            if !rest.starts_with(b"\\u") {
                return Err(Problem::LoneSurrogate);
            }
            match hex_unit(text, at + 1)? {
                (0xdc00..=0xdfff, end) => Ok(end),
                _ => Err(Problem::LoneSurrogate),
            }
        }
        0xdc00..=0xdfff => Err(Problem::LoneSurrogate),
        _ => Ok(at),
    }
}

/// Steps over the letter of a `\u` escape and its four digits, and reads them.
fn hex_unit(text: &[u8], letter_at: usize) -> Result<(u16, usize), Problem> {
    let mut unit = 0;
    for at in letter_at + 1..=letter_at + 4 {
        let Some(digit) = char::from(byte(text, at)).to_digit(16) else {
            return Err(expected(at, "a hexadecimal digit"));
        };
        unit = unit << 4 | digit as u16;
    }
    Ok((unit, letter_at + 5))
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
