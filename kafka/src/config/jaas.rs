//! The one line of `sasl.jaas.config` that Java clients take:
//! `org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";`
//!
//! Read as Java's tokenizer reads it: values in quotes with backslash escapes, or bare words.
//! Messages never repeat a part of the line: any of it may be a password in the wrong place.

use std::iter::Peekable;
use std::str::Chars;

use super::Mechanism;
use crate::secret::Secret;

const SHAPE: &str = "must be one line: org.apache.kafka.common.security.scram.ScramLoginModule required \
                     username=\"…\" password=\"…\"; (or …plain.PlainLoginModule)";

/// User name and password of the line, for use with `mechanism`.
///
/// # Errors
/// What is wrong with it, without its text.
pub fn parse(line: &str, mechanism: Mechanism) -> Result<(Secret, Secret), String> {
    let mut tokens = Tokens { rest: line.chars().peekable() };
    let module = tokens.word().ok_or(SHAPE)?;
    check_module(&module, mechanism)?;
    let flag = tokens.word().ok_or(SHAPE)?;
    if !["required", "requisite", "sufficient", "optional"].iter().any(|f| flag.eq_ignore_ascii_case(f)) {
        return Err(SHAPE.into());
    }
    let (mut username, mut password) = (None, None);
    while let Some(name) = tokens.word() {
        if !tokens.takes('=') {
            return Err(SHAPE.into());
        }
        let value = tokens.value()?;
        match &*name {
            "username" => username = Some(value),
            "password" => password = Some(value),
            "tokenauth" if value.eq_ignore_ascii_case("true") => {
                return Err("tokenauth (delegation tokens) isn't supported; use a user's own password".into());
            }
            // Java passes others to the module, which ignores them.
            _ => {}
        }
    }
    let ended = tokens.takes(';');
    if tokens.next_is_something() {
        return Err(if ended {
            "must hold one login module, with nothing behind its ';'".into()
        } else {
            SHAPE.into()
        });
    }
    match (username, password) {
        (Some(username), Some(password)) => Ok((username.as_str().into(), password.as_str().into())),
        (None, _) => Err("lacks username=\"…\"".into()),
        (_, None) => Err("lacks password=\"…\"".into()),
    }
}

fn check_module(module: &str, mechanism: Mechanism) -> Result<(), String> {
    let fits = match module.rsplit('.').next() {
        Some("PlainLoginModule") => mechanism == Mechanism::Plain,
        Some("ScramLoginModule") => mechanism != Mechanism::Plain,
        Some("OAuthBearerLoginModule") => return Err("OAUTHBEARER isn't in this version yet".into()),
        Some("Krb5LoginModule") => return Err("Kerberos (GSSAPI) isn't supported".into()),
        _ => return Err("its login module must be PlainLoginModule or ScramLoginModule".into()),
    };
    match (fits, mechanism) {
        (true, _) => Ok(()),
        (false, Mechanism::Plain) => Err("sasl.mechanism PLAIN needs PlainLoginModule".into()),
        (false, scram) => Err(format!("sasl.mechanism {} needs ScramLoginModule", scram.name())),
    }
}

struct Tokens<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Tokens<'_> {
    fn next_is_something(&mut self) -> bool {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        self.rest.peek().is_some()
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.next_is_something() && self.rest.next_if_eq(&wanted).is_some()
    }

    fn word(&mut self) -> Option<String> {
        self.next_is_something();
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| !c.is_whitespace() && !"=;\"'".contains(*c)) {
            word.push(c);
        }
        (!word.is_empty()).then_some(word)
    }

    fn value(&mut self) -> Result<String, String> {
        self.next_is_something();
        match self.rest.next_if(|c| "\"'".contains(*c)) {
            Some(quote) => self.quoted(quote),
            None => self.word().ok_or_else(|| SHAPE.into()),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.rest.next().ok_or("a quoted value doesn't end; write a quote inside it as \\\"")? {
                c if c == quote => return Ok(text),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    /// Escapes of `java.io.StreamTokenizer`; any other character stands for itself.
    fn escaped(&mut self) -> Result<char, String> {
        let first = self.rest.next().ok_or("a quoted value ends with a backslash; write it as \\\\")?;
        Ok(match first {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                let mut code = first.to_digit(8).unwrap_or(0);
                // Three digits up to \377, two beyond.
                let more = if first <= '3' { 2 } else { 1 };
                for _ in 0..more {
                    let Some(digit) = self.rest.next_if(|c| c.is_digit(8)) else { break };
                    code = code * 8 + digit.to_digit(8).unwrap_or(0);
                }
                char::from_u32(code).unwrap_or('\u{fffd}')
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str, mechanism: Mechanism) -> Result<(String, String), String> {
        let text = |secret: Secret| String::from_utf8(secret.reveal().to_vec()).unwrap();
        parse(line, mechanism).map(|(username, password)| (text(username), text(password)))
    }

    #[test]
    fn lines_that_java_takes_are_taken() {
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required ";
        for (options, username, password) in [
            (r#"username="alice" password="secret";"#, "alice", "secret"),
            (r#"username='alice' password=secret ;"#, "alice", "secret"),
            (r#"password="a\"b\\c\x" username = "o'neil" ;"#, "o'neil", r#"a"b\cx"#),
            (r#"username="a;b=c" password="tab\t\101\7" other="x";"#, "a;b=c", "tab\tA\u{7}"),
            ("\n  username=\"ü\"\n  password=\" p \"\n", "ü", " p "),
        ] {
            let found = read(&format!("{plain}{options}"), Mechanism::Plain);
            assert_eq!(found, Ok((username.into(), password.into())), "{options}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_repeating_the_line() {
        let plain = "a.PlainLoginModule required";
        for (line, message) in [
            ("hunter2", "its login module must be PlainLoginModule or ScramLoginModule"),
            ("PlainLoginModule hunter2", SHAPE),
            (&format!("{plain} username=\"a\";"), "lacks password=\"…\""),
            (&format!("{plain} password=\"hunter2\";"), "lacks username=\"…\""),
            (
                &format!("{plain} username=\"a\" password=\"hunter2"),
                "a quoted value doesn't end; write a quote inside it as \\\"",
            ),
            (&format!("{plain} username=\"a\" password=hunter2 hunter2;"), SHAPE),
            (
                &format!("{plain} username=\"a\" password=\"hunter2\"; {plain};"),
                "must hold one login module, with nothing behind its ';'",
            ),
            ("a.ScramLoginModule required;", "sasl.mechanism PLAIN needs PlainLoginModule"),
            ("com.sun.security.auth.module.Krb5LoginModule required;", "Kerberos (GSSAPI) isn't supported"),
            ("a.OAuthBearerLoginModule required;", "OAUTHBEARER isn't in this version yet"),
            ("", SHAPE),
        ] {
            let error = read(line, Mechanism::Plain).expect_err(line);
            assert_eq!(error, message, "{line}");
            assert!(!error.contains("hunter2"));
        }
        let token = "a.ScramLoginModule required username=\"a\" password=\"b\" tokenauth=true;";
        assert!(read(token, Mechanism::ScramSha256).unwrap_err().starts_with("tokenauth"));
        let wrong = read(plain, Mechanism::ScramSha512).unwrap_err();
        assert_eq!(wrong, "sasl.mechanism SCRAM-SHA-512 needs ScramLoginModule");
    }

    /// As Java's tokenizer would have it written: what could end the value is escaped.
    fn quoted(text: &str) -> String {
        let escaped: String = text
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                c => c.to_string(),
            })
            .collect();
        format!("\"{escaped}\"")
    }

    /// Any text, with what means something to the tokenizer more often than chance has it.
    fn texts() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec!['"', '\'', '\\', '\n', ';', '=', ' ', '0', 't']);
        let char = prop_oneof![2 => special, 1 => any::<char>()];
        prop::collection::vec(char, 0..20).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn a_line_that_was_written_is_read_back(username in texts(), password in texts()) {
            let (u, p) = (quoted(&username), quoted(&password));
            for line in [
                format!("a.ScramLoginModule required username={u} password={p};"),
                format!("ScramLoginModule\trequired\n password = {p}\nusername={u}  "),
            ] {
                prop_assert_eq!(read(&line, Mechanism::ScramSha512), Ok((username.clone(), password.clone())));
            }
        }

        /// Neither does a message repeat what may be a password in the wrong place.
        #[test]
        fn rubbish_is_an_error_without_the_line(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("a.PlainLoginModule".to_owned()),
                    Just(" required ".to_owned()),
                    Just(" username=".to_owned()),
                    Just("password=\"".to_owned()),
                    Just("hunter2".to_owned()),
                    "[\"'\\\\=;0-9 ]{0,5}",
                    "\\PC{0,10}",
                ],
                0..10,
            ),
        ) {
            if let Err(message) = read(&parts.concat(), Mechanism::Plain) {
                prop_assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }
}
