//! `utr serve`, as a program in Rust sees it through the usual client of OpenAI's API.
//!
//! It is here and not among the runtime's tests because the client would change features of what the runtime is built of: tests for a board would
//! compile all of that twice.

#[path = "../../runtime/tests/server/mod.rs"]
mod server;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
    FinishReason,
};
use server::Server;
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
