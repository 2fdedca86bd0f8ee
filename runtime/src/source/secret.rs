//! Keeps passwords out of what is printed.
//!
//! Comes in: text that may hold an address or a pipeline with a password. Goes out: the same text with `***` in its
//! place. Too much is hidden rather than too little.

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// Properties of GStreamer elements whose value is hidden.
const PROPERTIES: [&str; 15] = [
    "user-pw",
    "user-id",
    "proxy-pw",
    "proxy-id",
    "password",
    "passphrase",
    "secret",
    "token",
    "passwd",
    "pwd",
    "auth",
    "key",
    "cookies",
    "extra-headers",
    "authorization",
];

/// An address as typed, parsed or not: user and password hidden, of a query only that there is one. `gst://` is scrubbed.
pub fn mask_uri(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_string() };
    match scheme.to_ascii_lowercase().as_str() {
        "gst" => scrub(text),
        "file" | "test" | "pattern" | "v4l2" | "csi" | "replay" => text.to_string(),
        _ => {
            // A password may hold any character, also unencoded: everything up to the last @ goes.
            let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
            format!("{scheme}://{login}{}", hide_words(rest))
        }
    }
}

/// Free text (a pipeline, an element's message): logins in addresses and the values of properties such as `user-pw` hidden.
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = next_start(rest) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        rest = match from.strip_prefix("://") {
            Some(address) => {
                out.push_str("://");
                let end =
                    address.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(address.len());
                let (word, after) = address.split_at_checked(end).unwrap_or((address, ""));
                out.push_str(&hide_login(word));
                after
            }
            None => {
                let value = from.strip_prefix('=').unwrap_or(from);
                out.push('=');
                let (quoted, skipped) = skip_value(value);
                if quoted || !skipped.is_empty() {
                    out.push_str(MASK);
                }
                value.get(skipped.len()..).unwrap_or_default()
            }
        };
    }
    out.push_str(rest);
    out
}

/// The next `://`, or the `=` after a secret property's name.
fn next_start(text: &str) -> Option<usize> {
    let address = text.find("://");
    let property = text.match_indices('=').map(|(at, _)| at).find(|&at| {
        let name = text.get(..at).unwrap_or_default().trim_end();
        let name = name.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
        PROPERTIES.iter().any(|secret| {
            let name = name.to_ascii_lowercase();
            name == *secret || name.ends_with(&format!("-{secret}"))
        })
    });
    match (address, property) {
        (Some(a), Some(p)) => Some(a.min(p)),
        (a, p) => a.or(p),
    }
}

/// `user:password@host/path?key=value` with the login and the query's values hidden.
fn hide_login(address: &str) -> String {
    let (login, host) = address.rsplit_once('@').map_or(("", address), |(_, host)| ("***@", host));
    format!("{login}{}", hide_words(host))
}

/// An address behind its login: of a query only that there is one, and of a path only what stands before the first `=` (cheap recorders take
/// `/user=NAME_password=WORD`).
pub fn hide_words(address: &str) -> String {
    let (path, query) = address.split_once('?').map_or((address, ""), |(path, _)| (path, "?***"));
    match path.split_once('=') {
        Some((before, _)) => format!("{before}={MASK}{query}"),
        None => format!("{path}{query}"),
    }
}

/// The value after a property's `=`: a quoted text, or up to white space or `!`.
fn skip_value(text: &str) -> (bool, &str) {
    let body = text.trim_start();
    let lead = text.len() - body.len();
    let Some(quote) = body.chars().next().filter(|c| "\"'".contains(*c)) else {
        let end = body.find(|c: char| c.is_whitespace() || c == '!').unwrap_or(body.len());
        return (false, text.get(..lead + end).unwrap_or(text));
    };
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            c if c == quote && !escaped => return (true, text.get(..lead + at + 1).unwrap_or(text)),
            _ => escaped = false,
        }
    }
    (true, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn logins_and_secret_properties_are_hidden_and_the_rest_stays() {
        let pipeline = "rtspsrc location=rtsp://u:geheim@h/x?a=geheim user-pw=geheim latency=0 ! decodebin";
        assert_eq!(scrub(pipeline), "rtspsrc location=rtsp://***@h/x?*** user-pw=*** latency=0 ! decodebin");
        assert_eq!(scrub("srtsrc passphrase=\"ge \\\" heim\" ! x"), "srtsrc passphrase=*** ! x");
        assert_eq!(scrub("x proxy-pw = geheim ! y"), "x proxy-pw =*** ! y");
        let plain = "v4l2src device=/dev/video0 ! video/x-raw,width=640 ! videoconvert";
        assert_eq!(scrub(plain), plain);
    }

    #[test]
    fn an_address_that_does_not_parse_is_hidden_too() {
        assert_eq!(mask_uri("rtsp://a:p/w@x@host/s?pw=1"), "rtsp://***@host/s?***");
        assert_eq!(mask_uri("http://a:b@host"), "http://***@host");
        assert_eq!(mask_uri("file:///a@b?c"), "file:///a@b?c");
        let recorder = "rtsp://h:554/user=admin_password=geheim_channel=1?x";
        assert_eq!(
            (mask_uri(recorder), scrub(recorder)),
            ("rtsp://h:554/user=***?***".into(), "rtsp://h:554/user=***?***".into())
        );
        let headers = "souphttpsrc location=http://h/x extra-headers=\"h,Authorization=geheim\" cookies=\"a=geheim\" ! y";
        assert!(!scrub(headers).contains("geheim"), "{}", scrub(headers));
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_login_comes_through(password in "[a-zA-Z0-9@:/]{0,20}QZQ", before in "[a-z =]{0,10}") {
            let address = format!("rtsp://user:{password}@host/path");
            let shown = scrub(&format!("{before}{address}"));
            prop_assert!(!shown.contains("QZQ"), "{}", shown);
            prop_assert!(!mask_uri(&address).contains("QZQ"));
        }

        #[test]
        fn any_text_is_scrubbed_without_a_panic(text in ".{0,80}") {
            let _ = (scrub(&text), mask_uri(&text));
        }
    }
}
