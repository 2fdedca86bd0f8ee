//! Network cameras: `rtsp://` and `rtsps://`.
//!
//! Comes in: `[USER[:PASSWORD]@]HOST[:PORT][/PATH][?QUERY]`. Goes out: an [`RtspSpec`] with the login apart from the
//! address. Of the query, `latency`, `transport`, `codec`, `flip` and `verify` are ours; what else stands there belongs
//! to the camera. Neither `Display` nor `Debug` shows the login or the values of the camera's query.

use std::fmt::{Debug, Display, Formatter};

use super::camera::{Codec, Flip};
use super::query::{Query, percent_decode};
use super::secret::hide_words;

/// How long packets wait for late ones, in milliseconds: low, as what counts is the newest frame.
pub const DEFAULT_LATENCY_MS: u32 = 100;

/// A network camera's address and how it is read.
#[derive(Clone, PartialEq)]
pub struct RtspSpec {
    /// `rtsps://`.
    pub tls: bool,
    /// User and password.
    pub login: Option<Login>,
    /// Host and port, as typed.
    pub host: String,
    /// With its leading stroke; may be empty.
    pub path: String,
    /// The camera's own parameters, without `?`; may be empty and may hold secrets.
    pub query: String,
    /// Milliseconds that packets wait for late ones.
    pub latency_ms: u32,
    /// How packets travel.
    pub transport: Transport,
    /// What the camera sends, where it is not to be found out.
    pub codec: Option<Codec>,
    /// How the picture is turned.
    pub flip: Option<Flip>,
    /// Whether the camera's certificate must be good (`rtsps://`).
    pub verify: bool,
}

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In the control connection: nothing is lost, and a dead camera is noticed at once.
    Tcp,
    /// Apart from it: lower delay on a good network.
    Udp,
}

impl Transport {
    const NAMES: &'static [(&'static str, Transport)] = &[("tcp", Transport::Tcp), ("udp", Transport::Udp)];
}

/// What a network camera sends.
const CODECS: &[(&str, Codec)] = &[("mjpeg", Codec::Mjpeg), ("h264", Codec::H264), ("h265", Codec::H265)];

/// User and password, decoded. It prints as `***`.
#[derive(Clone, PartialEq)]
pub struct Login {
    /// Decoded.
    pub user: String,
    /// Decoded; may be empty.
    pub password: String,
}

impl Debug for Login {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(super::secret::MASK)
    }
}

impl RtspSpec {
    /// Parses what stands after `rtsp://`; no message repeats a part of the login.
    pub fn parse(rest: &str, tls: bool) -> Result<Self, String> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        if tail.contains('@') {
            return Err(
                "has an @ after the host; in a password / is written %2F, ? %3F and @ %40, and in a path \
                        @ is %40"
                    .into(),
            );
        }
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(Login::parse(login)?), host),
            None => (None, authority),
        };
        check_host(host)?;
        if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("has white space in its path; write %20".into());
        }
        let mut query = Query::parse(query).map_err(|_| "has a parameter without a value".to_string())?;
        let latency_ms = query.number("latency", 0, 60_000)?.and_then(|n| u32::try_from(n).ok());
        let transport = query.choice("transport", Transport::NAMES)?;
        let codec = query.choice("codec", CODECS)?;
        let flip = query.choice("flip", Flip::NAMES)?;
        let verify = query.flag("verify")?;
        Ok(Self {
            tls,
            login,
            host: host.to_string(),
            path: path.to_string(),
            query: query.rest(),
            latency_ms: latency_ms.unwrap_or(DEFAULT_LATENCY_MS),
            transport: transport.unwrap_or(Transport::Tcp),
            codec,
            flip,
            verify: verify.unwrap_or(true),
        })
    }

    /// The address for the element that connects: without the login, with the camera's own parameters. Not for printing.
    pub fn location(&self) -> String {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!("{}{}{}{query}", self.scheme(), self.host, self.path)
    }

    /// The address for people: login and the values of the camera's parameters hidden.
    pub fn shown(&self) -> String {
        let login = if self.login.is_some() { "***@" } else { "" };
        let query = if self.query.is_empty() { "" } else { "?***" };
        format!("{}{login}{}{}{query}", self.scheme(), self.host, hide_words(&self.path))
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "rtsps://" } else { "rtsp://" }
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |part| percent_decode(part).map_err(|reason| format!("the user or password {reason}"));
        Ok(Self { user: decode(user)?, password: decode(password)? })
    }
}

/// A name, an address, or an address in brackets; then perhaps a port. Nothing of the text is repeated: it may be half a
/// password.
fn check_host(text: &str) -> Result<(), String> {
    let fail = || {
        Err("has no good HOST[:PORT] before its path; in a user or password / is written %2F, : %3A, @ %40"
            .into())
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (address, port.strip_prefix(':'))
            }
            _ => return fail(),
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || !host.bytes().all(good) {
        return fail();
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        _ => fail(),
    }
}

impl Display for RtspSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let transport = if self.transport == Transport::Udp { "udp" } else { "tcp" };
        let joint = if self.query.is_empty() { '?' } else { '&' };
        write!(f, "{}{joint}latency={}&transport={transport}", self.shown(), self.latency_ms)?;
        self.codec.iter().try_for_each(|codec| write!(f, "&codec={}", codec.name()))?;
        self.flip.iter().try_for_each(|flip| write!(f, "&flip={}", flip.name()))?;
        if self.verify { Ok(()) } else { f.write_str("&verify=false") }
    }
}

impl Debug for RtspSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "RtspSpec({self})")
    }
}
