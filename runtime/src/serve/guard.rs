//! Who may ask: the token, and pages of other sites.
//!
//! Comes in: a request's path and headers. Goes out: leave, or a refusal. With a token file every request but `/healthz` and the page
//! itself (which holds no data and asks for the token) must carry it, on loopback too. A browser that was led here by another site is
//! turned away: by `Origin`, by `Sec-Fetch-Site`, and on loopback by a `Host` that is no loopback name (DNS rebinding).

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::errors::ApiError;
use super::log;
use crate::error::{Error, Result};

/// Shortest token.
const MIN_TOKEN: usize = 16;
/// Longest token file.
const MAX_TOKEN_FILE: u64 = 4096;

/// What is asked of a request.
pub struct Guard {
    token: Option<Vec<u8>>,
    loopback: bool,
}

impl Guard {
    /// Reads the token file. Warns where others can read it.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token that is short, long or not one word of ASCII; [`Error::Io`].
    pub fn open(listen: SocketAddr, token_file: Option<&Path>) -> Result<Self> {
        let token = token_file.map(read_token).transpose()?;
        Ok(Self { token, loopback: listen.ip().is_loopback() })
    }

    /// Whether requests need a token.
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this is the header that carries the token.
    pub fn knows(&self, authorization: Option<&HeaderValue>) -> bool {
        self.token.as_ref().is_some_and(|token| check_token(token, authorization).is_ok())
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// Status 403 for another site's page, 401 without the token.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        if path == "/healthz" {
            return Ok(());
        }
        self.same_site(path, headers)?;
        match &self.token {
            Some(token) if path != "/" => check_token(token, headers.get(header::AUTHORIZATION)),
            _ => Ok(()),
        }
    }

    fn same_site(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let refuse = |code, text: &str| Err(ApiError::new(StatusCode::FORBIDDEN, code, text));
        let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(header::HOST);
        if self.loopback && host.is_some_and(|host| !is_loopback_name(host)) {
            return refuse("foreign_host", "this server answers to localhost, 127.0.0.1 and [::1] only");
        }
        if let Some(origin) = text(header::ORIGIN) {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            let same = authority.zip(host).is_some_and(|(from, here)| from.eq_ignore_ascii_case(here));
            if !same {
                return refuse("foreign_origin", "pages of other sites may not use this server");
            }
        }
        let fetched_from = text(header::HeaderName::from_static("sec-fetch-site")).unwrap_or("none");
        // A link to the page itself is followed, whoever set it.
        if path != "/" && !matches!(fetched_from, "none" | "same-origin") {
            return refuse("foreign_origin", "pages of other sites may not use this server");
        }
        Ok(())
    }
}

fn check_token(token: &[u8], authorization: Option<&HeaderValue>) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", text));
    let Some(sent) = authorization else {
        return refuse("this server wants its token: Authorization: Bearer TOKEN");
    };
    let sent = sent.as_bytes();
    let is_bearer = sent.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    match sent.get(7..) {
        Some(word) if is_bearer && equal(word.trim_ascii(), token) => Ok(()),
        _ => refuse("the token is not this server's"),
    }
}

/// Compares in a time that depends on the lengths alone.
fn equal(sent: &[u8], token: &[u8]) -> bool {
    let differing = token.iter().enumerate().fold(0, |acc, (place, byte)| {
        acc | (byte ^ std::hint::black_box(sent.get(place).copied().unwrap_or(0)))
    });
    std::hint::black_box(differing) == 0 && sent.len() == token.len()
}

/// `localhost`, a name under it or a loopback address, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_token(path: &Path) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(Error::io(path))?;
    if !about.is_file() {
        return Err(Error::Argument(format!("--token-file {}: is no file", path.display())));
    }
    if about.len() > MAX_TOKEN_FILE {
        let (shown, size) = (path.display(), about.len());
        return Err(Error::Argument(format!(
            "--token-file {shown}: {size} bytes; it holds one line with the token"
        )));
    }
    if about.permissions().mode() & 0o004 != 0 {
        log::warn(&format!("{0} can be read by every user of this machine; chmod 600 {0}", path.display()));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(MAX_TOKEN_FILE).read_to_end(&mut text).map_err(Error::io(path))?;
    let token = text.trim_ascii();
    if token.len() < MIN_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(Error::Argument(format!(
            "--token-file {}: the token must be one word of at least {MIN_TOKEN} ASCII characters; openssl rand -hex 32 makes one",
            path.display()
        )));
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(guard: &Guard, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        guard.check(path, &headers).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn other_sites_are_turned_away_on_loopback() {
        let guard = Guard { token: None, loopback: true };
        for (headers, status) in [
            (vec![], 200),
            (vec![("host", "127.0.0.1:8600")], 200),
            (vec![("host", "LOCALHOST:8600")], 200),
            (vec![("host", "[::1]:8600")], 200),
            (vec![("host", "evil.example:8600")], 403),
            (vec![("host", "127.0.0.1.evil.example")], 403),
            (vec![("host", "localhost:8600"), ("origin", "http://localhost:8600")], 200),
            (vec![("host", "localhost:8600"), ("origin", "http://localhost:3000")], 403),
            (vec![("host", "localhost:8600"), ("origin", "null")], 403),
            (vec![("host", "localhost"), ("origin", "https://evil.example")], 403),
            (vec![("host", "localhost"), ("sec-fetch-site", "cross-site")], 403),
            (vec![("host", "localhost"), ("sec-fetch-site", "same-site")], 403),
            (vec![("host", "localhost"), ("sec-fetch-site", "same-origin")], 200),
        ] {
            assert_eq!(verdict(&guard, "/api/frame.jpg", &headers), status, "{headers:?}");
        }
        assert_eq!(verdict(&guard, "/", &[("host", "localhost"), ("sec-fetch-site", "cross-site")]), 200);
        let open = Guard { token: Some(b"0123456789abcdef".to_vec()), loopback: false };
        assert_eq!(verdict(&open, "/", &[("host", "robot.local")]), 200);
        assert_eq!(verdict(&open, "/", &[("host", "robot.local"), ("origin", "http://x")]), 403);
    }

    #[test]
    fn the_token_is_wanted_everywhere_but_for_health_and_the_page() {
        let guard = Guard { token: Some(b"0123456789abcdef".to_vec()), loopback: true };
        let with = |value: &str| verdict(&guard, "/api/status", &[("authorization", value)]);
        assert_eq!((with("Bearer 0123456789abcdef"), with("bearer  0123456789abcdef")), (200, 200));
        for wrong in [
            "0123456789abcdef",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(verdict(&guard, "/metrics", &[]), 401);
        assert_eq!((verdict(&guard, "/healthz", &[]), verdict(&guard, "/", &[])), (200, 200));
    }

    #[test]
    fn a_token_file_holds_one_long_word() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        for (text, good) in [
            ("0123456789abcdef\n", true),
            ("short\n", false),
            ("two words of some length", false),
            ("", false),
        ] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(Guard::open(listen, Some(file.path())).is_ok(), good, "{text:?}");
        }
        std::fs::write(file.path(), "x".repeat(5000)).unwrap();
        assert!(Guard::open(listen, Some(file.path())).is_err());
        assert!(Guard::open(listen, Some(Path::new("/no/such/file"))).is_err());
    }
}
