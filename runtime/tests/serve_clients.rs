//! `utr serve`, as its users' own programs see it: OpenAI's clients in Rust and Python, and a browser on the page. What is not installed is
//! left out, with a word.

#![cfg(feature = "serve")]

mod server;

use std::path::Path;
use std::process::Command;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
    FinishReason,
};
use server::{MOVING, Server, repository};
use tokio_stream::StreamExt;

fn request() -> CreateChatCompletionRequest {
    let message =
        ChatCompletionRequestUserMessageArgs::default().content("Describe the video.").build().unwrap();
    CreateChatCompletionRequestArgs::default()
        .model("utr-nano")
        .temperature(0.0)
        .messages([message.into()])
        .build()
        .unwrap()
}

#[test]
fn async_openai_asks_in_one_piece_and_streams() {
    let server = Server::still(&[]);
    let config = OpenAIConfig::new().with_api_base(format!("{}/v1", server.url())).with_api_key("none");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::with_config(config);
        let whole = client.chat().create(request()).await.unwrap();
        let text = whole.choices[0].message.content.clone().unwrap();
        assert_eq!(whole.choices[0].finish_reason, Some(FinishReason::Stop));
        assert!(!text.is_empty() && whole.usage.unwrap().completion_tokens > 5);
        let mut stream = client.chat().create_stream(request()).await.unwrap();
        let (mut streamed, mut finish, mut pieces) = (String::new(), None, 0);
        while let Some(chunk) = stream.next().await {
            let choice = chunk.unwrap().choices.remove(0);
            streamed.push_str(&choice.delta.content.unwrap_or_default());
            finish = choice.finish_reason.or(finish);
            pieces += 1;
        }
        assert!(pieces > 5);
        assert_eq!((streamed, finish), (text, Some(FinishReason::Stop)));
    });
}

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
