//! The part of an address after its `?`, and percent encoding.
//!
//! Comes in: `key=value&…`. Goes out: the values a source asks for, checked against their limits; what nobody asked for
//! is an error that lists what there is.

use std::path::Path;

/// Parameters not yet asked for.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Splits the text; every parameter needs a value.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| format!("the parameter {pair:?} has no value"))?;
                Ok((key.to_string(), value.to_string()))
            })
            .collect::<Result<_, String>>()
            .map(Self)
    }

    /// Takes a parameter out; of one given twice the last counts.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let found = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        self.0.retain(|(name, _)| name != key);
        found
    }

    /// A whole number within `low..=high`.
    pub fn number(&mut self, key: &str, low: u64, high: u64) -> Result<Option<u64>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number: u64 = value.parse().map_err(|_| format!("{key}={value:?} is not a whole number"))?;
        if !(low..=high).contains(&number) {
            return Err(format!("{key}={value} is outside {low} to {high}"));
        }
        Ok(Some(number))
    }

    /// `true` or `false`; -1 and 0 say the same, as jetson-inference's `loop` does.
    pub fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "-1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{key}={other:?} is neither true nor false")),
        }
    }

    /// One of a list of words.
    pub fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice);
        found.map(Some).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("{key}={value:?} is unknown; there are {}", known.join(", "))
        })
    }

    /// What is left, spelled as a query again.
    pub fn rest(self) -> String {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    }

    /// Nothing may be left.
    pub fn finish(self, known: &str) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("the parameter {key:?} is unknown; there are {known}")),
        }
    }
}

/// Decodes `%41` sequences of UTF-8 text.
pub fn percent_decode(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits: Option<u32> = (0..2).try_fold(0, |value, _| {
            let digit = (bytes.next()? as char).to_digit(16)?;
            Some(value * 16 + digit)
        });
        let Some(Ok(value)) = digits.map(u8::try_from) else {
            return Err(
                "has a % that is not followed by two hexadecimal digits (a plain % is written %25)".into()
            );
        };
        out.push(value);
    }
    String::from_utf8(out).map_err(|_| "does not decode to UTF-8 text".to_string())
}

/// Encodes what an address cannot hold as it stands.
pub fn percent_encode(path: &Path) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/-._~".contains(b);
    path.to_string_lossy()
        .bytes()
        .map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
