//! Tests of the memory budget: what is needed by mode and by engine, and the service's limit.
//!
//! Comes in: models of known sizes. Goes out: nothing.

use super::*;
use crate::shape::{Bits, Model, Shape, Tower};

const MIB: u64 = 1 << 20;

fn sizes(decoder: Shape, tower: Tower, bits: Bits) -> Sizes {
    let model = Model { decoder, tower: Some(tower) };
    let tokens = model.frame_tokens().unwrap();
    Sizes::of_decoder(&model.to_string(), &decoder.config(), model.needs(bits, tokens, CAPACITY), tokens)
}

/// Without a second copy of the matrices, whatever machine tests.
fn seven(bits: Bits) -> Sizes {
    sizes(Shape::Qwen2Seven, Tower::SiglipSo400m, bits)
}

fn board(name: &str) -> Board {
    Board::named(name).unwrap()
}

#[test]
fn keys_and_values_follow_the_mode_the_frames_and_the_precision() {
    let sizes = sizes(Shape::Qwen2Half, Tower::SiglipB16, Bits::Q4);
    let kv = |mode, frames, kv| sizes.need(Choice { frames, mode, kv }, Engines::default()).kv;
    let exact = kv(WindowMode::Exact, 32, KvPrecision::F16);
    // 24 blocks, 2 heads of 64 channels, keys and values of 2 bytes: 12288 bytes a row.
    let text = (TEXT + 1 + Sampling::default().max_tokens) as u64;
    assert_eq!(exact, (32 * 49 + text) * 12_288);
    assert_eq!(kv(WindowMode::Exact, 32, KvPrecision::F32), 2 * exact);
    let [ahead, rolling] =
        [WindowMode::Ahead, WindowMode::Rolling].map(|mode| kv(mode, 32, KvPrecision::F16));
    assert!(exact < rolling && rolling < ahead, "{exact} {rolling} {ahead}");
    assert!(kv(WindowMode::Rolling, 16, KvPrecision::F16) < rolling);
    assert!(kv(WindowMode::Rolling, 32, KvPrecision::Q8) < rolling * 6 / 10);
    let half = Choice { frames: 16, mode: WindowMode::Exact, kv: KvPrecision::F16 };
    assert_eq!(sizes.need(half, Engines::default()).window, 16 * 49 * 896 * 4);
}

#[test]
fn a_second_copy_counts_where_the_processor_works_on_one() {
    let plain = seven(Bits::Q4);
    let packed = |sizes: &Sizes| sizes.need(sizes.choice(Wish::exact()), Engines::default()).packed;
    assert_eq!(packed(&plain.on(&board("jetson-agx-orin"))), 0);
    let of = |format| plain.clone().with_matrices(123, format);
    assert_eq!(packed(&of(Format::Q4_0).on(&board("jetson-agx-orin"))), 123);
    // candle multiplies with f32 in place of these.
    assert_eq!(packed(&plain.clone().with_matrices(64, Format::F16).on(&board("jetson-agx-orin"))), 128);
    assert_eq!(packed(&plain.clone().with_matrices(64, Format::F32)), 64);
    // Carmel has no dot products and works on f32: of two blocks of 34 bytes for 32 weights. What a generic board has is not known.
    let two = plain.clone().with_matrices(68, Format::Q8_0);
    assert_eq!(packed(&two.on(&board("jetson-xavier-nx"))), 64 * 4);
    assert_eq!(packed(&of(Format::Q8_0).on(&board("generic"))), 0);
}

#[test]
fn a_wish_is_filled_from_the_model_and_bounded() {
    let sizes = sizes(Shape::Qwen2Half, Tower::SiglipB16, Bits::Q4);
    let choice = sizes.choice(Wish::default());
    assert_eq!((choice.frames, choice.mode, choice.kv), (32, WindowMode::Rolling, KvPrecision::F16));
    assert_eq!(sizes.choice(Wish { frames: Some(900), ..Wish::exact() }).frames, CAPACITY);
    assert_eq!(sizes.choice(Wish { frames: Some(0), ..Wish::exact() }).mode, WindowMode::Exact);
}

#[test]
fn the_services_limit_lies_above_the_need_by_a_quarter_and_is_whole() {
    let sizes = sizes(Shape::Qwen2Half, Tower::SiglipB16, Bits::Q4);
    for mode in [WindowMode::Exact, WindowMode::Ahead, WindowMode::Rolling] {
        let choice = Choice { frames: 32, mode, kv: KvPrecision::F16 };
        let limit = |encoder: EncoderKind| memory_max(&sizes, choice, encoder.into());
        let need = sizes.need(choice, Engines::default()).total() + SOURCE;
        let tract = limit(EncoderKind::Tract);
        assert!(
            tract.is_multiple_of(MIB) && tract + MIB > need + need / 4 && tract < 2 * need,
            "{tract} {need}"
        );
        assert!(tract < limit(EncoderKind::Ort) && limit(EncoderKind::OrtCuda) > tract + (2 << 30));
        let gpu = Engines { device: DeviceChoice::Cuda(None), ..Engines::default() };
        assert_eq!(memory_max(&sizes, choice, gpu), limit(EncoderKind::OrtCuda));
        // What engines take counts once.
        assert_eq!(sizes.need(choice, gpu).engines, 2 << 30);
        assert!(memory_max(&sizes, choice, gpu) - tract <= (2 << 30) / 4 * 5 + MIB);
    }
    let manifest = utr_models::bundle::Bundle::manifest_of(std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/bundles/utr-nano"
    )));
    let nano = Sizes::of_manifest(&manifest.unwrap().0);
    let limit = memory_max(&nano, nano.choice(Wish::default()), Engines::default());
    // The program, a large camera, four megabytes of weights, and little else.
    assert!((540 * MIB..620 * MIB).contains(&limit), "{limit}");
}

#[test]
fn absurd_sizes_need_too_much_and_break_nothing() {
    let text = TextConfig {
        layers: usize::MAX,
        kv_heads: usize::MAX,
        head_dim: usize::MAX,
        ..Shape::Qwen2Half.config()
    };
    let memory = Memory { weights: u64::MAX, window: u64::MAX, kv: 1, scratch: 1 };
    let sizes = Sizes::of_decoder("absurd", &text, memory, usize::MAX);
    for mode in [WindowMode::Exact, WindowMode::Ahead, WindowMode::Rolling] {
        let choice = Choice { frames: 32, mode, kv: KvPrecision::F32 };
        assert_eq!(sizes.need(choice, Engines::default()).total(), u64::MAX);
        assert!(memory_max(&sizes, choice, Engines::default()) > 1 << 60);
    }
}

#[test]
fn bytes_are_told_in_two_units() {
    assert_eq!(
        [size(0), size(1), size(700 * MIB), size(1 << 30), size(9_556_302_234)],
        ["0 MiB", "1 MiB", "700 MiB", "1.0 GiB", "8.9 GiB"]
    );
}
