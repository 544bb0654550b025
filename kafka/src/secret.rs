//! Values of keys that may be secrets: given in the configuration, or kept elsewhere and referred
//! to by `file:PATH` or `env:NAME`.
//!
//! A reference is followed at each use, so that the next connection has a rotated value without a
//! restart; what was found is never written back. Neither a value nor what was found is ever shown
//! by Debug or in an error: those name the key and where the value should have been.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::config::ConfigError;

/// Keys and chains take some KiB, a bundle of public CAs about 250.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes that aren't shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// The value of one key, as configured. Equal when configured equally: what references lead to is
/// not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    key: &'static str,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Literal(Secret),
    File(Arc<Path>),
    Variable(Arc<str>),
}

impl Value {
    /// A literal, or a reference when it begins with `file:` or `env:`.
    ///
    /// # Errors
    /// A reference to a path that isn't absolute or to a variable without a name.
    pub fn new(key: &'static str, text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("file:") {
            return Self::at(key, path);
        }
        let source = match text.strip_prefix("env:") {
            None => Source::Literal(text.into()),
            Some(name) if !name.is_empty() && !name.contains(['=', '\0']) => Source::Variable(name.into()),
            Some(_) => return Err(ConfigError::new(key, "env: must be followed by a variable's name")),
        };
        Ok(Self { key, source })
    }

    /// The content of a file.
    ///
    /// # Errors
    /// A path that isn't absolute: what it would lead to depended on how the process was started.
    pub fn at(key: &'static str, path: &str) -> Result<Self, ConfigError> {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(ConfigError::new(key, "must be the absolute path of a file"));
        }
        Ok(Self { key, source: Source::File(path.into()) })
    }

    pub fn key(&self) -> &'static str {
        self.key
    }

    pub fn is_literal(&self) -> bool {
        matches!(self.source, Source::Literal(_))
    }

    /// The file that holds the value.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(path),
            _ => None,
        }
    }

    /// Follows the reference. A line end after the last line of a file isn't part of the value.
    /// May block on the file system.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key and the path or variable that gives no value.
    pub fn resolve(&self) -> Result<Secret, ConfigError> {
        let (found, at) = match &self.source {
            Source::Literal(secret) => return Ok(secret.clone()),
            Source::File(path) => (read(path), path.display().to_string()),
            Source::Variable(name) => {
                let value = std::env::var(&**name).map_err(|e| match e {
                    std::env::VarError::NotPresent => "it isn't set in this node's environment".to_owned(),
                    std::env::VarError::NotUnicode(_) => "it isn't UTF-8".to_owned(),
                });
                (value.map(String::into_bytes), format!("environment variable {name}"))
            }
        };
        let found =
            found.and_then(|bytes| if bytes.is_empty() { Err("it is empty".to_owned()) } else { Ok(bytes) });
        let secret = found.map_err(|e| ConfigError::new(self.key, format!("no value from {at}: {e}")))?;
        Ok(Secret(secret.into()))
    }

    /// [`resolve`](Self::resolve) for a value that must be text.
    ///
    /// # Errors
    /// As there, and for a file that isn't UTF-8.
    pub fn resolve_text(&self) -> Result<Secret, ConfigError> {
        let secret = self.resolve()?;
        match std::str::from_utf8(secret.reveal()) {
            Ok(_) => Ok(secret),
            Err(_) => Err(ConfigError::new(self.key, "its value isn't UTF-8 text")),
        }
    }
}

/// Only a regular file: a pipe or a terminal would be used up by the first connection.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it isn't a regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    while let Some(b'\n' | b'\r') = bytes.last() {
        bytes.pop();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::new("sasl.password", text).unwrap()
    }

    #[test]
    fn a_rotated_file_is_seen_by_the_next_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let reference = value(&format!("file:{}", path.display()));
        for text in ["first\n", "second", "third\r\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(reference.resolve().unwrap().reveal(), text.trim_end().as_bytes());
        }
        assert_eq!(reference, value(&format!("file:{}", path.display())), "equal as configured");
    }

    #[test]
    fn a_variable_is_read_and_a_literal_is_kept_as_it_is() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(value("env:PATH").resolve().unwrap().reveal(), path.as_bytes());
        assert_eq!(value(" s p ").resolve().unwrap().reveal(), b" s p ");
    }

    #[test]
    fn a_reference_that_leads_nowhere_names_key_and_place() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("empty"), "\n").unwrap();
        std::fs::write(at("binary"), [0xfe, 0xed]).unwrap();
        for (text, message) in [
            (
                format!("file:{}", at("gone")),
                format!("no value from {}: No such file or directory (os error 2)", at("gone")),
            ),
            (format!("file:{}", at("empty")), format!("no value from {}: it is empty", at("empty"))),
            (format!("file:{}", at("")), format!("no value from {}: it isn't a regular file", at(""))),
            (format!("file:{}", at("binary")), "its value isn't UTF-8 text".to_owned()),
            (
                "env:LOCKSTEP_NO_SUCH_VARIABLE".to_owned(),
                "no value from environment variable LOCKSTEP_NO_SUCH_VARIABLE: \
                 it isn't set in this node's environment"
                    .to_owned(),
            ),
        ] {
            assert_eq!(
                value(&text).resolve_text().unwrap_err().to_string(),
                format!("sasl.password: {message}")
            );
        }
        for (text, message) in [
            ("file:password", "must be the absolute path of a file"),
            ("env:", "env: must be followed by a variable's name"),
        ] {
            assert_eq!(Value::new("sasl.password", text).unwrap_err().message, message);
        }
    }
}
