//! A target that must fail: if the fuzzer does not find its four bytes, the fuzzer sees nothing.

/// Panics at inputs that begin with `bird`. Compared byte by byte: each one that is right leads to
/// code that was not covered before, as a fault behind nested conditions does.
///
/// # Panics
/// At such inputs.
pub fn run(data: &[u8]) {
    let mut known = 0;
    for expected in b"bird" {
        match data.get(known) {
            Some(given) if given == expected => known += 1,
            _ => return,
        }
    }
    panic!("the canary was found");
}
