//! Requests as clients send them: what is taken, what is refused, and with which words.

use serde_json::json;

use super::*;

fn resolve(body: &Value) -> Result<Ask, String> {
    let request = Request::parse(body.to_string().as_bytes()).map_err(|error| error.message)?;
    request.resolve(Sampling::default(), Some("be brief")).map_err(|error| error.message)
}

fn asked(content: &Value) -> Result<Ask, String> {
    resolve(&json!({"messages": [{"role": "user", "content": content}]}))
}

#[test]
fn a_plain_request_is_about_the_live_window_under_the_sessions_instructions() {
    let ask = resolve(&json!({
        "model": "any", "messages": [{"role": "user", "content": "what moves?", "name": "x"}],
        "presence_penalty": 0.5, "unknown": {"deep": [1, 2]}, "stop": null, "tools": [], "seed": -3
    }))
    .unwrap();
    assert_eq!(ask.media, Media::Live);
    assert_eq!(ask.messages, [Message::text(Role::System, "be brief"), Message::question("what moves?")]);
    assert_eq!((ask.stream, ask.evidence, ask.sampling.seed), (false, Wanted::Nothing, -3i64 as u64));
    assert!(!ask.sampling.ignore_eos);
}

#[test]
fn earlier_turns_follow_the_window_and_own_instructions_replace_the_sessions() {
    let ask = resolve(&json!({"messages": [
        {"role": "system", "content": "answer in French"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "live:"}}, {"type": "text", "text": "d"}]},
    ]}))
    .unwrap();
    let videos: Vec<bool> = ask.messages.iter().map(|message| message.video).collect();
    assert_eq!(videos, [false, true, false, false]);
    assert_eq!((ask.messages[0].text.as_str(), ask.messages[1].text.as_str()), ("answer in French", "a\nb"));
}

#[test]
fn the_videos_address_is_spelled_in_few_ways() {
    let media = |url: &str| {
        asked(&json!([{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "q"}]))
            .map(|ask| ask.media)
    };
    assert_eq!(media("live:"), Ok(Media::Live));
    assert_eq!(media("live:default"), Ok(Media::Live));
    assert_eq!(media("live:default?last=8"), Ok(Media::Newest(8)));
    assert_eq!(media("file:///a.mp4"), Ok(Media::File("file:///a.mp4".into())));
    for (url, word) in [
        ("live:garage", "live:default"),
        ("live:default?last=0", "1 to 32"),
        ("live:default?last=33", "1 to 32"),
        ("live:default?first=3", "last=N"),
        ("http://h/v.mp4", "nothing is fetched"),
        ("data:video/mp4;base64,AA", "nothing is fetched"),
    ] {
        let message = media(url).unwrap_err();
        assert!(message.contains(word), "{url}: {message}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
        body[field] = value;
        resolve(&body)
    };
    for (field, value, word) in [
        ("n", json!(2), "one answer"),
        ("stop", json!(["x"]), "stop sequences"),
        ("stop", json!("x"), "stop sequences"),
        ("tools", json!([{}]), "tools"),
        ("logprobs", json!(true), "log"),
        ("response_format", json!({"type": "json_object"}), "plain text"),
        ("max_tokens", json!(0), "4096"),
        ("max_completion_tokens", json!(5000), "4096"),
        ("temperature", json!(3), "0 to 2"),
        ("temperature", json!(-1), "0 to 2"),
        ("top_p", json!(0), "top-p"),
        ("evidence", json!("space"), "time"),
        ("messages", json!([]), "last message"),
        ("messages", json!([{"role": "tool", "content": "q"}]), "tool"),
        ("messages", json!([{"role": "user", "content": " "}]), "question"),
        ("messages", json!([{"role": "user", "content": "x".repeat(65537)}]), "65536"),
        ("messages", json!(vec![json!({"role": "user", "content": "q"}); 257]), "256"),
    ] {
        let message = with(field, value).map(|_| ()).unwrap_err();
        assert!(message.contains(word), "{field}: {message}");
    }
    assert!(with("n", json!(1)).is_ok() && with("response_format", json!({"type": "text"})).is_ok());
    assert_eq!(with("evidence", json!("time")).unwrap().evidence, Wanted::FramesAndTime);
    assert_eq!(with("max_tokens", json!(7)).unwrap().sampling.max_tokens, 7);
    for part in [json!({"type": "image_url", "image_url": {"url": "data:"}}), json!({"type": "input_audio"})]
    {
        assert!(asked(&json!([part, {"type": "text", "text": "q"}])).unwrap_err().contains("not supported"));
    }
    let video = json!({"type": "video_url", "video_url": {"url": "live:"}});
    assert!(asked(&json!([video, video, {"type": "text", "text": "q"}])).unwrap_err().contains("two videos"));
    let turn = json!({"role": "user", "content": [video, {"type": "text", "text": "q"}]});
    assert!(with("messages", json!([turn, turn])).unwrap_err().contains("once"));
}

proptest::proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if let Ok(request) = Request::parse(&bytes) {
            let _ = request.resolve(Sampling::default(), None);
        }
    }
}
