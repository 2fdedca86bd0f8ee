//! `utr ask`: questions about one clip, answered on the terminal.
//!
//! Comes in: resolved arguments. Goes out: streamed text with the frames and timings after it, or one JSON object per
//! question. The frames are captured and encoded once, whatever the number of questions.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use anyhow::Context;

use crate::answer::{Answer, Question};
use crate::cli::Ask;
use crate::interrupt::Interrupt;
use crate::load::Model;
use crate::pipeline::Pipeline;
use crate::record::{SessionNote, save_view};

/// Runs the command; `bundle` is the folder to load.
///
/// # Errors
/// Whatever loading, capture and answering report, and a closed standard output.
pub fn run(
    ask: &Ask,
    bundle: &std::path::Path,
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let model = Model::open_for(bundle, ask.stream.engines, ask.wish())?;
    let options = ask.stream.capture(interrupt);
    let (settings, frame_sampling, sampling) = ask.settle(&model.language.defaults)?;
    let session =
        SessionNote::new(&model.language, model.encoder.name(), &settings, &ask.stream.source.to_string());
    let mut pipeline = Pipeline::new(model, &settings, interrupt.clone())?;
    let mut asked = Instant::now();
    pipeline.watch(&ask.stream.source, frame_sampling, &options)?;
    let mut recorded = Vec::new();
    let echo = ask.questions.len() > 1 || std::io::stdout().is_terminal();
    for text in &ask.questions {
        let question = Question { sampling, asked, evidence: ask.evidence, ..settings.question(text) };
        let view = pipeline.view();
        let answer = if ask.json {
            let answer = pipeline.answer(&view, &question, &mut |_| Ok(()))?;
            serde_json::to_writer(&mut *out, &answer).context("writing the answer")?;
            writeln!(out)?;
            answer
        } else {
            if echo {
                writeln!(out, "? {text}")?;
            }
            let answer = pipeline.answer(&view, &question, &mut |piece| write_piece(out, piece))?;
            writeln!(out)?;
            write!(out, "{}", Summary(&answer))?;
            answer
        };
        out.flush()?;
        if let Some(path) = &ask.record {
            // Written anew with each answer, so that what was answered is kept whatever comes next.
            recorded.push((question, answer));
            save_view(path, &session, &view, &recorded)?;
        }
        asked = Instant::now();
    }
    Ok(())
}

/// Shows a piece of text at once.
fn write_piece(out: &mut dyn Write, piece: &str) -> crate::Result<()> {
    out.write_all(piece.as_bytes()).and_then(|()| out.flush()).map_err(crate::Error::io("standard output"))
}

/// The lines after an answer: its frames, and where the time went.
struct Summary<'a>(&'a Answer);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (answer, t) = (self.0, &self.0.timings);
        let frames: Vec<String> = answer.frames.iter().map(|frame| frame.index.to_string()).collect();
        let (Some(oldest), Some(newest)) = (answer.frames.first(), answer.frames.last()) else {
            return Ok(());
        };
        writeln!(
            f,
            "  frames  {} ({:.2} to {:.2} s; {} dropped)",
            frames.join(" "),
            oldest.pts_ms as f64 / 1e3,
            newest.pts_ms as f64 / 1e3,
            answer.dropped
        )?;
        writeln!(
            f,
            "  time    capture {:.0} ms, encode {:.0} ms, prefill {:.1} ms ({} of {} tokens reused), first token {:.1} ms, \
             {} tokens in {:.1} ms ({:.0}/s)",
            t.capture_ms,
            t.encode_ms,
            t.prefill_ms,
            t.reused_tokens,
            t.prompt_tokens,
            t.ttft_ms,
            t.output_tokens,
            t.decode_ms,
            t.tokens_per_s
        )?;
        let Some(evidence) = &answer.evidence else { return Ok(()) };
        let mut lit: Vec<(f32, usize)> =
            evidence.per_frame.iter().copied().zip(answer.frames.iter().map(|frame| frame.index)).collect();
        lit.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most: Vec<String> =
            lit.iter().take(5).map(|(share, index)| format!("{index} ({:.0} %)", share * 100.0)).collect();
        write!(f, "  stands  on {:.1} frames' worth, most on {}", evidence.breadth, most.join(", "))?;
        match evidence.tpl {
            Some(tpl) => writeln!(f, "; temporal perplexity {tpl:.2}"),
            None => writeln!(f),
        }
    }
}
