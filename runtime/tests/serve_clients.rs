//! `utr serve`, as its users' own programs see it: OpenAI's client in Python, and a browser on the page (the client in Rust is in
//! `tests/all/client.rs`). What is not installed is left out, with a word.

#![cfg(feature = "serve")]

mod server;

use std::path::Path;
use std::process::Command;

use server::{MOVING, Server, repository};

/// Runs a script; none where its program is not there.
fn script(program: &Path, name: &str, arguments: &[&str]) -> Option<String> {
    let path = repository().join("tests/clients").join(name);
    let output = Command::new(program).arg(path).args(arguments).output().ok()?;
    let (out, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{words}");
    Some(out.into_owned())
}

#[test]
fn the_ordinary_python_client_is_answered() {
    let python = repository().join(".venv/bin/python");
    let has_openai =
        Command::new(&python).args(["-c", "import openai"]).output().is_ok_and(|run| run.status.success());
    if !has_openai {
        eprintln!("skipped: no Python with `openai` in .venv (.ci/clients .venv fetches it)");
        return;
    }
    let server = Server::still(&[]);
    let said = script(&python, "openai_client.py", &[&server.url()]).unwrap();
    assert!(said.contains("\"finish\": \"stop\""), "{said}");
}

#[test]
fn the_page_asks_streams_and_lights_up_in_a_browser() {
    let has =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success());
    if !(has("chromedriver") && has("chromium") && has("python3")) {
        eprintln!("skipped: no chromium with chromedriver and python3 (apt-get install chromium-driver)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shots = folder.path().to_str().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "correct-horse-battery-staple").unwrap();
    let locked = Server::start(MOVING, &["--fps", "8", "--token-file", token.to_str().unwrap()]);
    let open = Server::start(MOVING, &["--fps", "8"]);
    for (server, token) in [(&open, None), (&locked, Some("correct-horse-battery-staple"))] {
        let url = server.url();
        let arguments = [&[url.as_str(), shots][..], token.as_slice()].concat();
        let said = script(Path::new("python3"), "page.py", &arguments).unwrap();
        assert!(said.contains("\"lit\""), "{said}");
        assert!(std::fs::metadata(folder.path().join("phone-dark.png")).unwrap().len() > 10_000);
    }
}
