//! A judge: a language model behind an OpenAI-compatible address, asked about what no rule decides.
//!
//! Comes in: cases. Goes out: rulings. Every reply is kept in a file beside the results under the hash of what was asked, so that no case is paid for twice, also
//! after a kill. An address that does not answer is tried again, later each time; a reply without a verdict is asked for again; then it ends, with
//! everything before it kept. The key comes from a file or a variable and appears in no message.

use super::rubric::{Case, Instructed};
use super::verdict::{self, Verdict};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait for one reply.
const LONGEST: Duration = Duration::from_secs(180);
/// First wait before another try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait before another try.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// What is shown of a refusal.
const SHOWN: usize = 300;

/// Who judges.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct JudgeArgs {
    /// An OpenAI-compatible address, such as http://127.0.0.1:8000/v1
    #[arg(id = "judge-url", long = "judge-url", value_name = "URL", requires = "judge-model")]
    pub url: Option<String>,
    /// The judge's name there
    #[arg(id = "judge-model", long = "judge-model", value_name = "NAME", requires = "judge-url")]
    pub model: Option<String>,
    /// File that holds the key
    #[arg(id = "judge-key-file", long = "judge-key-file", value_name = "FILE", requires = "judge-url")]
    pub key_file: Option<PathBuf>,
    /// Environment variable that holds the key
    #[arg(
        id = "judge-key-env",
        long = "judge-key-env",
        value_name = "NAME",
        requires = "judge-url",
        conflicts_with = "judge-key-file"
    )]
    pub key_env: Option<String>,
    /// Other instructions for it, TOML: a table for each of multi_choice, yes_no, caption_matching, captioning, open_ended, with `system` and `user`, in which
    /// {question}, {answer} and {reply} stand for the texts
    #[arg(id = "judge-prompts", long = "judge-prompts", value_name = "FILE", requires = "judge-url")]
    pub prompts: Option<PathBuf>,
    /// How often a case is put to it before its silence ends the run, or its unreadable reply counts as wrong; 10 where absent
    #[arg(id = "judge-attempts", long = "judge-attempts", value_name = "N", value_parser = super::at_least_one)]
    pub attempts: Option<usize>,
    /// How many cases it is asked at once; 4 where absent
    #[arg(id = "judge-threads", long = "judge-threads", value_name = "N", value_parser = super::at_least_one)]
    pub threads: Option<usize>,
}

/// What a judge said about a case.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// None where nothing in it can be read.
    pub verdict: Option<Verdict>,
    /// Its words.
    pub said: String,
}

/// A line of the file of replies.
#[derive(Serialize, Deserialize)]
struct Kept {
    asked: String,
    said: String,
}

/// An open judge.
pub struct Judge {
    agent: ureq::Agent,
    url: String,
    model: String,
    key: Option<String>,
    instructed: Instructed,
    attempts: usize,
    threads: usize,
    kept: Mutex<(HashMap<String, String>, File)>,
}

/// Why a try failed.
enum Failure {
    /// Another try may help, not before this time.
    Passing(String, Option<Duration>),
    /// It will be the same again.
    Final(String),
}

impl Judge {
    /// The judge that the arguments name; its replies are kept in `file`.
    ///
    /// # Errors
    /// An address of another kind, a key or a file that cannot be read.
    pub fn open(args: &JudgeArgs, file: &Path) -> Result<Option<Self>> {
        let (Some(url), Some(model)) = (&args.url, &args.model) else { return Ok(None) };
        let address = url.strip_prefix("http://").with_context(|| {
            "--judge-url begins with http://; put a proxy on this machine before an address that speaks TLS"
        })?;
        ensure!(!address.contains('@'), "--judge-url holds a login; give the key with --judge-key-file");
        let key = match (&args.key_file, &args.key_env) {
            (Some(path), _) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("reading --judge-key-file {}", path.display()))?,
            ),
            (None, Some(name)) => {
                Some(std::env::var(name).with_context(|| format!("--judge-key-env {name}"))?)
            }
            (None, None) => None,
        };
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(LONGEST)).http_status_as_error(false).build();
        Ok(Some(Self {
            agent: agent.into(),
            url: url.trim_end_matches('/').to_string(),
            model: model.clone(),
            key: key.map(|key| key.trim().to_string()),
            instructed: args.prompts.as_deref().map(Instructed::load).transpose()?.unwrap_or_default(),
            attempts: args.attempts.unwrap_or(10),
            threads: args.threads.unwrap_or(4),
            kept: Mutex::new(recall(file)?),
        }))
    }

    /// Its name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How many cases it takes at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Its ruling on a case, from the file where it is there.
    ///
    /// # Errors
    /// A judge that refuses, or that stays silent after all attempts; a stop.
    pub fn rule(&self, case: &Case, stop: &AtomicBool) -> Result<Ruling> {
        let request = self.instructed.request(case, &self.model).to_string();
        let asked: String =
            Sha256::digest(request.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let read =
            |said: String| Ruling { verdict: verdict::read(case.rubric, &said, &case.asked.answer), said };
        let kept = |asked: &str| {
            Ok::<_, anyhow::Error>(self.kept.lock().map_err(|_| panicked())?.0.get(asked).cloned())
        };
        if let Some(said) = kept(&asked)? {
            return Ok(read(said));
        }
        let (mut wait, mut last) = (FIRST_WAIT, Err(String::new()));
        for attempt in 1..=self.attempts {
            ensure!(!stop.load(Ordering::Relaxed), "stopped; the same command goes on");
            let pause = match self.ask(&request) {
                Ok(said) => {
                    let ruling = read(said);
                    if ruling.verdict.is_some() {
                        self.keep(&asked, &ruling.said)?;
                        return Ok(ruling);
                    }
                    last = Ok(ruling);
                    None
                }
                Err(Failure::Passing(reason, pause)) => {
                    last = last.or(Err(reason));
                    Some(pause.map_or(wait, |asked| asked.min(LONGEST)))
                }
                Err(Failure::Final(reason)) => bail!("the judge at {} refuses: {reason}", self.url),
            };
            if let Some(pause) = pause.filter(|_| attempt < self.attempts) {
                sleep(pause, stop);
                wait = (wait * 2).min(LAST_WAIT);
            }
        }
        let ruling = last.map_err(|reason| {
            anyhow!(
                "the judge at {} did not answer in {} attempts ({reason}); its earlier replies are kept, the same command goes on",
                self.url,
                self.attempts
            )
        })?;
        self.keep(&asked, &ruling.said)?;
        Ok(ruling)
    }

    fn keep(&self, asked: &str, said: &str) -> Result<()> {
        let mut kept = self.kept.lock().map_err(|_| panicked())?;
        let line = serde_json::to_string(&Kept { asked: asked.into(), said: said.into() })? + "\n";
        kept.1.write_all(line.as_bytes()).context("keeping a judge's reply")?;
        kept.0.insert(asked.into(), said.into());
        Ok(())
    }

    fn ask(&self, request: &str) -> Result<String, Failure> {
        let mut post = self
            .agent
            .post(format!("{}/chat/completions", self.url))
            .header("content-type", "application/json");
        if let Some(key) = &self.key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let passing = |error: ureq::Error| Failure::Passing(error.to_string(), None);
        let mut response = post.send(request).map_err(passing)?;
        let status = response.status().as_u16();
        let later = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.body_mut().read_to_string().map_err(passing)?;
        let shown = || format!("status {status}: {}", text.chars().take(SHOWN).collect::<String>());
        match status {
            200 => {}
            408 | 409 | 425 | 429 | 500..=599 => {
                return Err(Failure::Passing(shown(), later.map(Duration::from_secs)));
            }
            _ => return Err(Failure::Final(shown())),
        }
        let reply: Value = serde_json::from_str(&text).map_err(|_| Failure::Passing(shown(), None))?;
        let said = reply.pointer("/choices/0/message/content").and_then(Value::as_str);
        said.map(|said| said.trim().to_string()).ok_or_else(|| Failure::Passing(shown(), None))
    }
}

fn panicked() -> anyhow::Error {
    anyhow!("a thread of the judge panicked")
}

fn sleep(wait: Duration, stop: &AtomicBool) {
    let slice = Duration::from_millis(50);
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(left.min(slice));
        left = left.saturating_sub(slice);
    }
}

/// The replies of earlier runs; a last line that a kill cut off is dropped.
fn recall(path: &Path) -> Result<(HashMap<String, String>, File)> {
    let reading = || format!("reading {}", path.display());
    let text =
        if path.exists() { std::fs::read_to_string(path).with_context(reading)? } else { String::new() };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut replies = HashMap::new();
    for (number, line) in (1..).zip(text.get(..whole).unwrap_or_default().lines()) {
        let kept: Kept =
            serde_json::from_str(line).with_context(|| format!("{}, line {number}", reading()))?;
        replies.insert(kept.asked, kept.said);
    }
    let file = OpenOptions::new().create(true).append(true).open(path).with_context(reading)?;
    file.set_len(whole as u64).with_context(reading)?;
    Ok((replies, file))
}

#[cfg(test)]
mod tests {
    use super::super::item::Asked;
    use super::super::rubric::Rubric;
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;
    use std::sync::Arc;

    /// A server that gives one scripted reply per connection: a status with more headers, a body. What it was sent comes back.
    fn scripted(replies: Vec<(&'static str, String)>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (status, body) in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head += &line;
                }
                let mut content = vec![0; length];
                reader.read_exact(&mut content).unwrap();
                sent.lock().unwrap().push(head + &String::from_utf8(content).unwrap());
                let reply = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        (url, seen)
    }

    fn says(content: &str) -> (&'static str, String) {
        ("200 OK", serde_json::json!({"choices": [{"message": {"content": content}}]}).to_string())
    }

    fn case() -> Case {
        let asked = Asked { question: "Up?".into(), answer: "yes".into() };
        Case { rubric: Rubric::YesNo, asked, reply: "It does".into() }
    }

    fn open(url: &str, folder: &Path, attempts: usize) -> Judge {
        let key = folder.join("key");
        std::fs::write(&key, "secret-key\n").unwrap();
        let args = JudgeArgs {
            url: Some(url.to_string()),
            model: Some("judge-1".into()),
            key_file: Some(key),
            attempts: Some(attempts),
            ..JudgeArgs::default()
        };
        Judge::open(&args, &folder.join("judge.jsonl")).unwrap().unwrap()
    }

    #[test]
    fn it_is_asked_again_until_it_can_be_read_and_never_twice() {
        let busy = ("429 Too Many Requests\r\nretry-after: 0", "{}".to_string());
        let (url, seen) =
            scripted(vec![busy, says("Hm."), ("200 OK", "not JSON".into()), says("Correct, it rises.")]);
        let folder = tempfile::tempdir().unwrap();
        let (judge, stop) = (open(&url, folder.path(), 5), AtomicBool::new(false));
        let ruling = judge.rule(&case(), &stop).unwrap();
        assert_eq!(ruling.verdict.and_then(|verdict| verdict.right), Some(true));
        let asked = seen.lock().unwrap().clone();
        assert_eq!(asked.len(), 4);
        assert!(
            asked[0].starts_with("POST /v1/chat/completions") && asked[0].contains("Bearer secret-key"),
            "{}",
            asked[0]
        );
        assert!(asked[0].contains("\"model\":\"judge-1\"") && asked[0].contains("It does"));
        // The server is gone: what follows comes from the file, whose last line was cut off meanwhile.
        let mut file = OpenOptions::new().append(true).open(folder.path().join("judge.jsonl")).unwrap();
        file.write_all(b"{\"asked\": \"ab").unwrap();
        let again = open(&url, folder.path(), 1).rule(&case(), &stop).unwrap();
        assert_eq!(again.said, ruling.said);
    }

    #[test]
    fn silence_and_refusal_end_it_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let (url, _) = scripted(vec![("401 Unauthorized", "no such key".into())]);
        let refused = open(&url, folder.path(), 5).rule(&case(), &stop).unwrap_err().to_string();
        assert!(
            refused.contains("401") && refused.contains("no such key") && !refused.contains("secret"),
            "{refused}"
        );
        let silent =
            open("http://127.0.0.1:9/v1", folder.path(), 2).rule(&case(), &stop).unwrap_err().to_string();
        assert!(silent.contains("2 attempts") && !silent.contains("secret"), "{silent}");
        let (url, _) = scripted(vec![says("Hm."), says("Well.")]);
        let vague = open(&url, folder.path(), 2).rule(&case(), &stop).unwrap();
        assert_eq!((vague.verdict, vague.said.as_str()), (None, "Well."));
        let secure =
            JudgeArgs { url: Some("https://x/v1".into()), model: Some("m".into()), ..JudgeArgs::default() };
        assert!(
            Judge::open(&secure, &folder.path().join("j")).err().unwrap().to_string().contains("http://")
        );
    }
}
