//! PEM as OpenSSL reads it, out of PEM as it survives properties files and web forms: line ends may
//! have become blanks or the two characters `\n`.

/// What PEM lines are long.
const LINE_CHARS: usize = 64;

/// The sections whose label is wanted, in their order; empty when there is none. Encrypted keys are
/// left out: `lockstep` reads none.
pub fn select(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some((label, body, behind)) = next_section(rest) {
        rest = behind;
        // A colon is the header of a key that was encrypted the old way.
        if wanted(label) && !body.contains(':') {
            push(&mut found, label, body);
        }
    }
    found
}

pub fn is_certificate(label: &str) -> bool {
    matches!(label, "CERTIFICATE" | "X509 CERTIFICATE")
}

pub fn is_key(label: &str) -> bool {
    matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY")
}

/// Label, body and what follows.
fn next_section(text: &str) -> Option<(&str, &str, &str)> {
    let (_, section) = text.split_once("-----BEGIN ")?;
    let (label, section) = section.split_once("-----")?;
    let (body, behind) = section.split_once("-----END ")?;
    Some((label, body, behind))
}

fn push(found: &mut String, label: &str, body: &str) {
    let mut base64 = body.replace("\\n", "").replace("\\r", "");
    base64.retain(|letter| !letter.is_whitespace());
    found.push_str(&format!("-----BEGIN {label}-----\n"));
    for (index, letter) in base64.chars().enumerate() {
        if index > 0 && index % LINE_CHARS == 0 {
            found.push('\n');
        }
        found.push(letter);
    }
    found.push_str(&format!("\n-----END {label}-----\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_line_ends_come_back() {
        let body = "A".repeat(100);
        let expected = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n{}\n-----END CERTIFICATE-----\n",
            &body[..64],
            &body[64..]
        );
        for between in ["\n", " ", "\\n", "\r\n", "\\n\n"] {
            let text = format!(
                "Bag Attributes: x{between}-----BEGIN CERTIFICATE-----{between}{}{between}{}{between}-----END CERTIFICATE-----",
                &body[..70],
                &body[70..]
            );
            assert_eq!(select(&text, is_certificate), expected, "{between:?}");
        }
    }

    #[test]
    fn only_what_is_wanted_is_taken() {
        let text = "-----BEGIN PRIVATE KEY-----\nKK\n-----END PRIVATE KEY-----\n\
                    -----BEGIN CERTIFICATE-----\nC1\n-----END CERTIFICATE-----\n\
                    -----BEGIN CERTIFICATE-----\nC2\n-----END CERTIFICATE-----\n\
                    -----BEGIN ENCRYPTED PRIVATE KEY-----\nEE\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(select(text, is_key), "-----BEGIN PRIVATE KEY-----\nKK\n-----END PRIVATE KEY-----\n");
        let certificates = select(text, is_certificate);
        assert_eq!(certificates.matches("BEGIN").count(), 2);
        assert!(certificates.find("C1") < certificates.find("C2"));
        assert_eq!(select("no PEM", is_key), "");
        let old =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA\n-----END RSA PRIVATE KEY-----";
        assert_eq!(select(old, is_key), "");
    }
}
