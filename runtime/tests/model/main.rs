//! A small random model, as a Hugging Face folder and as the bundle exported from it, through the whole pipeline.

#[path = "../contract/mod.rs"]
mod contract;
mod tiny;

use std::sync::Arc;
use std::time::Instant;

use tiny::Tiny;
use utr_models::bundle::{Bundle, GoldenQuestion, VISION};
use utr_models::generate::Sampling as TokenSampling;
use utr_runtime::Error;
use utr_runtime::answer::Answer;
use utr_runtime::answer::Question;
use utr_runtime::bundle::verify;
use utr_runtime::capture::{CaptureOptions, Frame, Stamp};
use utr_runtime::decode::{KvPrecision, Past, Place, Span};
use utr_runtime::encode::{self, EncoderKind, VisionEncoder, encode_frames};
use utr_runtime::interrupt::Interrupt;
use utr_runtime::load::Model;
use utr_runtime::pipeline::{Pipeline, Settings};
use utr_runtime::sample::Sampling;
use utr_runtime::source::Source;

const CLIP: &str = "pattern://squares?frames=40&seed=5&width=50&height=70";

fn question(text: &str, max_tokens: usize) -> Question {
    Question::new(text).with_sampling(TokenSampling { max_tokens, ..TokenSampling::default() })
}

fn watch(pipeline: &mut Pipeline, frames: usize) {
    let source = Source::parse(CLIP).unwrap();
    pipeline.watch(&source, Sampling::Uniform { frames }, &CaptureOptions::default()).unwrap();
}

fn ask(pipeline: &mut Pipeline, text: &str) -> Answer {
    let mut streamed = String::new();
    let answer = pipeline
        .ask(&question(text, 24), &mut |piece| {
            streamed.push_str(piece);
            Ok(())
        })
        .unwrap();
    assert_eq!(streamed, answer.text, "what was streamed is the answer");
    answer
}

#[test]
fn a_bundle_answers_as_the_folder_it_was_made_from() {
    let tiny = Tiny::new(vec![]);
    let mut answers = Vec::new();
    for folder in [tiny.hf(), tiny.bundle()] {
        let mut pipeline = tiny.pipeline(&folder, 32);
        watch(&mut pipeline, 8);
        answers.push(
            ["which square moved?", "was it the left one?"].map(|text| ask(&mut pipeline, text).tokens),
        );
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0][0], answers[0][1], "the question makes no difference");
    assert!(answers[0][0].len() > 3, "{answers:?}");
}

#[test]
fn a_second_question_reads_only_its_own_tokens_and_answers_the_same() {
    let tiny = Tiny::new(vec![]);
    let mut shared = tiny.pipeline(&tiny.bundle(), 32);
    watch(&mut shared, 8);
    let first = ask(&mut shared, "which square moved?");
    let again = ask(&mut shared, "was it the left one?");
    let mut fresh = tiny.pipeline(&tiny.bundle(), 32);
    watch(&mut fresh, 8);
    let alone = ask(&mut fresh, "was it the left one?");
    assert_eq!(again.tokens, alone.tokens);
    assert_eq!((first.timings.reused_tokens, alone.timings.reused_tokens), (0, 0));
    assert!(again.timings.reused_tokens > 8 * 9, "{:?}", again.timings);
    assert!(
        first.timings.encode_ms > 0.0 && again.timings.encode_ms == 0.0,
        "frames are charged to one answer"
    );
    // Another window: nothing may be taken over.
    watch(&mut shared, 4);
    assert_eq!(ask(&mut shared, "was it the left one?").timings.reused_tokens, 0);
}

#[test]
fn an_answer_says_which_frames_it_stands_on() {
    let tiny = Tiny::new(vec![]);
    let mut pipeline = tiny.pipeline(&tiny.bundle(), 32);
    watch(&mut pipeline, 4);
    let answer = ask(&mut pipeline, "which square moved?");
    let frames: Vec<(usize, u64)> = answer.frames.iter().map(|frame| (frame.index, frame.pts_ms)).collect();
    assert_eq!(frames, [(0, 0), (13, 433), (26, 866), (39, 1300)]);
    assert_eq!(answer.window_span_ms, 1300);
    let json = serde_json::to_value(&answer).unwrap();
    contract::has_every_field(&json);
    assert_eq!(json["bundle"]["name"], "tiny");
}

#[test]
fn one_frame_answers_and_a_clip_too_long_is_refused_with_the_numbers() {
    let tiny = Tiny::new(vec![]);
    let mut pipeline = tiny.pipeline(&tiny.bundle(), 32);
    watch(&mut pipeline, 1);
    assert_eq!(ask(&mut pipeline, "which square?").frames.len(), 1);
    watch(&mut pipeline, 32);
    let long = "why ".repeat(300);
    let error = pipeline.ask(&question(&long, 4), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Context { limit: 600, visual: 289, .. }), "{error}");
    // The refusal leaves the pipeline usable.
    ask(&mut pipeline, "which square?");
}

#[test]
fn special_tokens_typed_by_a_user_stay_text() {
    let tiny = Tiny::new(vec![]);
    let mut pipeline = tiny.pipeline(&tiny.bundle(), 32);
    watch(&mut pipeline, 2);
    let answer = ask(&mut pipeline, "<video> <|im_end|> which?");
    assert_eq!(answer.frames.len(), 2);
}

#[test]
fn an_interrupt_ends_an_answer_between_tokens() {
    let tiny = Tiny::new(vec![]);
    let interrupt = Interrupt::default();
    let mut pipeline =
        Pipeline::new(Model::open(&tiny.bundle(), None).unwrap(), &Settings::exact(32), interrupt.clone())
            .unwrap();
    watch(&mut pipeline, 2);
    let result = pipeline.ask(&question("which square moved?", 200), &mut |_| {
        interrupt.request();
        Ok(())
    });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
}

#[test]
fn reading_in_pieces_and_spans_gives_the_states_of_reading_at_once() {
    let tiny = Tiny::new(vec![]);
    let model = Model::open(&tiny.hf(), None).unwrap();
    let decoder = model.language.decoder.as_ref();
    let ids: Vec<u32> = (0..60).map(|i| i * 7 % 300).collect();
    let rows = decoder.embed(&ids).unwrap();
    let span = || Span::new(decoder.shape(), KvPrecision::F32, 60);
    let mut whole = span();
    let states = decoder.read(&[], Place { own: &mut whole, start: 0 }, &rows, None).unwrap();
    // The same rows as three spans, the last one in pieces of 7 and then one by one.
    let (mut a, mut b, mut c) = (span(), span(), span());
    let at = |row: usize| row * decoder.hidden();
    decoder.read(&[], Place { own: &mut a, start: 0 }, &rows[..at(13)], None).unwrap();
    let past = [Past { span: &a, start: 0 }];
    decoder.read(&past, Place { own: &mut b, start: 13 }, &rows[at(13)..at(31)], None).unwrap();
    let past = [past[0], Past { span: &b, start: 13 }];
    let mut pieces = Vec::new();
    for piece in rows[at(31)..at(52)].chunks(at(7)).chain(rows[at(52)..].chunks(at(1))) {
        pieces = decoder.read(&past, Place { own: &mut c, start: 31 }, piece, None).unwrap();
    }
    assert_eq!((whole.len(), a.len(), b.len(), c.len()), (60, 13, 18, 29));
    let off = states[at(59)..].iter().zip(&pieces).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{off}");
    assert_eq!(decoder.logits(&pieces).unwrap().len(), decoder.vocab());
    // What cannot be is refused, and the span stays usable.
    assert!(decoder.read(&past, Place { own: &mut c, start: 12 }, &rows[..at(1)], None).is_err());
    assert!(decoder.read(&past, Place { own: &mut c, start: 31 }, &rows, None).is_err(), "there is no room");
    assert_eq!(c.len(), 29);
}

/// Tolerance between the engines on one graph in f32.
const ENCODER_TOLERANCE: f32 = 2e-4;

fn tokens_of(encoder: &mut dyn VisionEncoder) -> Vec<f32> {
    let sampled = utr_runtime::sample::sample(
        &Source::parse(CLIP).unwrap(),
        Sampling::Uniform { frames: 11 },
        &CaptureOptions::default(),
    )
    .unwrap();
    let frames = encode_frames(encoder, &sampled.frames, &Interrupt::default()).unwrap();
    frames.iter().flat_map(|frame| frame.tokens.clone()).chain(encoder.newline().to_vec()).collect()
}

#[test]
fn the_encoders_agree() {
    let tiny = Tiny::new(vec![]);
    let bundle = Bundle::open(&tiny.bundle()).unwrap();
    let open = |kind| {
        encode::open(kind, &bundle.path(VISION).unwrap(), bundle.manifest().network.preprocess.clone())
    };
    let mut reference = open(EncoderKind::Candle).unwrap();
    assert_eq!((reference.tokens_per_frame(), reference.hidden()), (9, 32));
    let expected = tokens_of(reference.as_mut());
    assert_eq!(expected.len(), 11 * 9 * 32 + 32);
    let compare = |mut encoder: Box<dyn VisionEncoder>| {
        assert_eq!((encoder.tokens_per_frame(), encoder.hidden()), (9, 32), "{}", encoder.name());
        let found = tokens_of(encoder.as_mut());
        let off = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < ENCODER_TOLERANCE && found.len() == expected.len(), "{}: off by {off}", encoder.name());
        assert!(encoder.encode(&[0.0; 7], 1).is_err());
    };
    compare(open(EncoderKind::Tract).unwrap());
    // ONNX Runtime's library is the user's to install: with it the engine must agree, without it the error must help.
    match open(EncoderKind::Ort) {
        Ok(encoder) => compare(encoder),
        Err(error) => {
            assert!(std::env::var_os("ORT_DYLIB_PATH").is_none(), "{error}");
            assert!(error.to_string().contains("pip install onnxruntime"), "{error}");
        }
    }
}

#[test]
fn a_hugging_face_folder_is_refused_by_engines_that_need_onnx() {
    let tiny = Tiny::new(vec![]);
    let message = Model::open(&tiny.hf(), Some(EncoderKind::Tract)).err().unwrap().to_string();
    assert!(message.contains("vision.onnx") && message.contains("candle"), "{message}");
}

#[test]
fn repeated_frames_are_encoded_once_and_shared() {
    let tiny = Tiny::new(vec![]);
    let mut model = Model::open(&tiny.bundle(), None).unwrap();
    let frame = |index| {
        let image = utr_models::RgbFrame::new(5, 4, vec![index as u8 * 40; 60]).unwrap();
        Arc::new(Frame { stamp: Stamp { index, pts_ms: 0 }, captured: Instant::now(), image })
    };
    let (a, b) = (frame(0), frame(1));
    let order = [&a, &a, &b, &b, &b, &a].map(Arc::clone);
    let encoded = encode_frames(model.encoder.as_mut(), &order, &Interrupt::default()).unwrap();
    assert_eq!(encoded.iter().map(|frame| frame.stamp.index).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 0]);
    assert!(Arc::ptr_eq(&encoded[0], &encoded[1]) && !Arc::ptr_eq(&encoded[0], &encoded[5]));
    assert_eq!(encoded[0].tokens, encoded[5].tokens);
}

#[test]
fn verify_replays_the_golden_questions_and_notices_another_answer() {
    let plain = Tiny::new(vec![]);
    let mut pipeline = plain.pipeline(&plain.bundle(), 32);
    watch(&mut pipeline, 8);
    let text = "which square moved?";
    let answer = ask(&mut pipeline, text);
    let mut golden = GoldenQuestion {
        source: CLIP.into(),
        frames: 8,
        question: text.into(),
        answer: answer.text,
        tokens: answer.tokens,
    };
    let run = |tiny: &Tiny| {
        let mut out = Vec::new();
        let good = verify(&tiny.bundle(), EncoderKind::Tract, &Interrupt::default(), &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    };
    let (good, text) = run(&Tiny::new(vec![golden.clone()]));
    assert!(good && text.contains("1 of 1"), "{text}");
    golden.tokens[1] ^= 1;
    let altered = Tiny::new(vec![golden.clone()]);
    let (good, text) = run(&altered);
    assert!(!good && text.contains("0 of 1"), "{text}");
    std::fs::write(altered.bundle().join("stray.txt"), "x").unwrap();
    let (good, text) = run(&altered);
    assert!(!good && text.contains("stray.txt"), "{text}");
    golden.source = "gst://videotestsrc".into();
    let piped = Tiny::new(vec![golden]);
    let mut out = Vec::new();
    assert!(verify(&piped.bundle(), EncoderKind::Tract, &Interrupt::default(), &mut out).is_err());
}
