//! What the paper reports (arXiv 2502.12081, tables 1 and 2), for the table beside ours.
//!
//! Comes in: a benchmark. Goes out: its column. Starred figures are the paper's own runs of another's model.

use super::SuiteKind;

/// A model's row.
pub struct Reported {
    /// The model.
    pub model: &'static str,
    /// Its language model.
    pub language: &'static str,
    /// Samples it was trained on.
    pub data: &'static str,
    /// MVBench, TempCompass, Video-MME, ActivityNet-QA.
    figures: [&'static str; 4],
}

impl Reported {
    /// Its figure on a benchmark; `-` where there is none.
    pub fn figure(&self, suite: SuiteKind) -> &'static str {
        let [mvbench, tempcompass, video_mme, activitynet] = self.figures;
        match suite {
            SuiteKind::World => "-",
            SuiteKind::MvBench => mvbench,
            SuiteKind::TempCompass => tempcompass,
            SuiteKind::VideoMme => video_mme,
            SuiteKind::ActivityNetQa => activitynet,
        }
    }
}

const fn row(
    model: &'static str,
    language: &'static str,
    data: &'static str,
    figures: [&'static str; 4],
) -> Reported {
    Reported { model, language, data, figures }
}

/// In the paper's order.
pub const REPORTED: [Reported; 9] = [
    row("VideoChat", "Vicuna-7B", "765K", ["35.5", "-", "-", "- / 2.2"]),
    row("VideoChat2", "Vicuna-7B", "1.9M", ["51.1", "38.5", "-", "49.1 / 3.3"]),
    row("Video-ChatGPT", "Vicuna-7B", "765K", ["32.7", "31.8", "-", "12.4 / 1.1"]),
    row("Video-LLaVA", "Vicuna-7B", "765K", ["34.1", "34.8", "39.9", "35.2 / 2.7"]),
    row("VideoLLaMA2", "LLaMA2-7B", "13.4M", ["54.6", "-", "46.6", "50.2 / 3.3"]),
    row("PLLaVA", "LLaMA2-7B", "1M", ["46.6", "-", "-", "56.3 / 3.5"]),
    row("LLaVA-NeXT-Video", "Qwen2-7B", "860K", ["54.6", "-", "33.7", "53.5 / 3.2"]),
    row("LLaVA-OneVision", "Qwen2-7B", "1.6M", ["56.7", "59.0\\*", "58.2", "56.6\\* / 3.3\\*"]),
    row("Video-UTR", "Qwen2-7B", "1.1M", ["58.8", "59.7", "52.6", "55.0 / 3.2"]),
];
