//! Java's properties files, read as `java.util.Properties.load` does.
//!
//! Messages name the line by its number and never repeat it: any of it may be a secret.

use std::iter::Peekable;
use std::str::Chars;

/// What Java takes for blank in these files.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// Keys with their values, in the file's order.
///
/// # Errors
/// What is wrong, with the line's number.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut pairs = Vec::new();
    let mut lines = (1u32..).zip(text.split('\n'));
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while is_continued(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(BLANK));
        }
        pairs.push(pair(&logical).map_err(|reason| format!("line {number}: {reason}"))?);
    }
    Ok(pairs)
}

/// By a backslash at its end that isn't itself escaped.
fn is_continued(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// A key ends at the first `=`, `:` or blank; blanks and one `=` or `:` stand before the value.
fn pair(line: &str) -> Result<(String, String), String> {
    let mut rest = line.chars().peekable();
    let mut key = String::new();
    while let Some(c) = rest.next_if(|c| !BLANK.contains(c) && !['=', ':'].contains(c)) {
        key.push(unescaped(c, &mut rest)?);
    }
    while rest.next_if(|c| BLANK.contains(c)).is_some() {}
    if rest.next_if(|c| ['=', ':'].contains(c)).is_none() {
        // Java takes the key alone, with an empty value; no key of ours has one.
        if rest.peek().is_none() {
            return Err("is not key=value".into());
        }
    }
    while rest.next_if(|c| BLANK.contains(c)).is_some() {}
    let mut value = String::new();
    while let Some(c) = rest.next() {
        value.push(unescaped(c, &mut rest)?);
    }
    if key.is_empty() { Err("has a value without a key".into()) } else { Ok((key, value)) }
}

/// `c`, or what it and what follows stand for when it is a backslash.
fn unescaped(c: char, rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    if c != '\\' {
        return Ok(c);
    }
    match rest.next() {
        Some('t') => Ok('\t'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('f') => Ok('\u{c}'),
        Some('u') => unicode(rest),
        Some(other) => Ok(other),
        None => Err("ends in a backslash".into()),
    }
}

fn unicode(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let high = utf16(rest)?;
    let pair = match high {
        0xd800..0xdc00 if rest.next_if_eq(&'\\').is_some() && rest.next_if_eq(&'u').is_some() => {
            char::decode_utf16([high, utf16(rest)?]).next()
        }
        unit => char::decode_utf16([unit]).next(),
    };
    pair.and_then(Result::ok).ok_or_else(|| "has half a character in \\u escapes".into())
}

fn utf16(rest: &mut Peekable<Chars<'_>>) -> Result<u16, String> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = rest.next().and_then(|c| c.to_digit(16)).ok_or("has a \\u without four hex digits")?;
        unit = unit * 16 + digit as u16;
    }
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).expect("pairs")
    }

    #[test]
    fn keys_and_values_are_what_java_makes_of_them() {
        for (text, key, value) in [
            ("a=b", "a", "b"),
            ("  a : b", "a", "b"),
            ("a b", "a", "b"),
            ("a\t=\tb=c", "a", "b=c"),
            ("a=", "a", ""),
            ("a=b ", "a", "b "),
            ("# comment\\\na=b", "a", "b"),
            ("a=b\\\r\n   c", "a", "bc"),
            ("a=b\\\\\n", "a", "b\\"),
            ("a=b\\", "a", "b"),
            (r#"p=\"x\\y\""#, "p", r#""x\y""#),
            (r"a\ \=\:=\u00fc\uD83D\uDE00\q\t", "a =:", "ü😀q\t"),
        ] {
            assert_eq!(parsed(text), [(key.to_owned(), value.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_without_the_line() {
        for (text, message) in [
            ("a=b\nhunter2", "line 2: is not key=value"),
            ("\n\n=hunter2", "line 3: has a value without a key"),
            ("a=hunter2\\u12", "line 1: has a \\u without four hex digits"),
            ("a=hunter2\\ud83d", "line 1: has half a character in \\u escapes"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text:?}");
        }
    }

    /// As `Properties.store` would write it, with a blank line end here and there.
    fn written(text: &str, folded_every: usize) -> String {
        let mut out = String::new();
        for (at, c) in text.chars().enumerate() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{c}' => out.push_str("\\f"),
                ' ' | '=' | ':' | '#' | '!' | '\\' => out.extend(['\\', c]),
                c => out.push(c),
            }
            if at % folded_every == folded_every - 1 {
                out.push_str("\\\n \t");
            }
        }
        out
    }

    fn texts(least: usize) -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec!['\\', '\n', '\r', '\t', ' ', '=', ':', '#', '!', 'u', '0']);
        prop::collection::vec(prop_oneof![1 => special, 1 => any::<char>()], least..20)
            .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            pairs in prop::collection::vec((texts(1), texts(0)), 0..5),
            folded_every in 1usize..30,
            between in prop::sample::select(vec!["=", ":", " = ", "\t:  "]),
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n  # a comment\\\n"]),
        ) {
            let line = |(key, value): &(String, String)| {
                [&written(key, folded_every), between, &written(value, folded_every), line_end].concat()
            };
            let text: String = pairs.iter().map(line).collect();
            prop_assert_eq!(parse(&text), Ok(pairs), "{:?}", text);
        }

        #[test]
        fn rubbish_is_read_or_told_without_itself(text in "(hunter2|[\\\\u=: \n\r#0-9]|\\PC){0,40}") {
            if let Err(message) = parse(&text) {
                prop_assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }
}
