//! Metrics: what Prometheus scrapes, and what the page shows of the recent past.
//!
//! Comes in: every frame and answer, on the session's threads, and the session's counts and the board's sensors at each scrape. Goes out: OpenMetrics
//! text, and [`Recent`]. The names are a contract with dashboards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::answer::{Answer, Question};
use crate::board::Root;
use crate::budget;
use crate::capture::Frame;
use crate::error::{Error, Result};
use crate::pipeline::Look;
use crate::power::Meter;
use crate::session::{Observer, Status};

/// Frames whose times make the rate.
const RATE_FRAMES: usize = 16;

type Label = [(&'static str, &'static str); 1];
/// A label whose values the board makes up.
type Sensor = [(&'static str, String); 1];
type Level = Gauge<f64, AtomicU64>;

/// Everything counted.
pub struct Metrics {
    registry: Registry,
    captured: Counter,
    dropped: Family<Label, Counter>,
    reconnects: Counter,
    caps_changes: Counter,
    encode: Histogram,
    prefill: Histogram,
    ttft: Histogram,
    tokens: Counter,
    age: Histogram,
    memory: Family<Label, Level>,
    meter: Mutex<Meter>,
    power: Family<Sensor, Level>,
    temperature: Family<Sensor, Level>,
    requests: Family<Label, Counter>,
    pending: Level,
    window: Level,
    recent: Mutex<Recent>,
}

/// What the page shows of the recent past.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// When frames entered the window, the newest last.
    times: VecDeque<Instant>,
    /// Encoding the newest frame.
    pub encode_ms: f64,
    /// Reading it, in the modes that read ahead.
    pub prefill_ms: f64,
    /// The newest answer.
    pub answer: Option<Answer>,
    /// Answers given.
    pub answers: u64,
    /// A smoothed answer's time, in seconds, without its wait.
    pub answer_s: f64,
}

impl Recent {
    /// Frames per second that entered the window; 0 where none came lately.
    pub fn fps(&self) -> f64 {
        let (Some(first), Some(last)) = (self.times.front(), self.times.back()) else { return 0.0 };
        let (span, n) =
            (last.duration_since(*first).as_secs_f64(), self.times.len().saturating_sub(1) as f64);
        // Where the newest frame is overdue the time since it counts too: the rate sinks when a source stops.
        let quiet = last.elapsed().as_secs_f64();
        if span <= 0.0 {
            return 0.0;
        }
        let mean = span / n;
        n / (span + if quiet > 2.0 * mean { quiet } else { 0.0 })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let (encode, prefill, ttft, age) = (seconds(), seconds(), seconds(), seconds());
        for (name, help, histogram) in [
            ("utr_encode", "Resizing and encoding one frame", &encode),
            ("utr_prefill", "Reading what a question needs before its first token", &prefill),
            ("utr_ttft", "From the question to the first token, its wait included", &ttft),
            ("utr_answer_age", "Age of the newest frame of an answer at its first token", &age),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        let all = Self {
            captured: register(&mut registry, "utr_frames_captured", "Frames the source delivered"),
            dropped: register(&mut registry, "utr_frames_dropped", "Frames lost, by where"),
            reconnects: register(&mut registry, "utr_reconnects", "Times the source was opened again"),
            caps_changes: register(&mut registry, "utr_caps_changes", "Times the source changed its format"),
            tokens: register(&mut registry, "utr_decode_tokens", "Tokens of answers"),
            requests: register(&mut registry, "utr_requests", "Questions, by outcome"),
            memory: register(&mut registry, "utr_memory_bytes", "Memory of this process, by kind"),
            meter: Mutex::new(Meter::open(&Root::here())),
            power: register(&mut registry, "utr_power_watts", "What the board draws, by rail"),
            temperature: register(&mut registry, "utr_temperature_celsius", "How hot the board is, by zone"),
            pending: register(&mut registry, "utr_queue_pending", "Questions waiting or being answered"),
            window: register(&mut registry, "utr_window_frames", "Frames in the window"),
            encode,
            prefill,
            ttft,
            age,
            recent: Mutex::default(),
            registry: Registry::default(),
        };
        for outcome in ["answered", "cancelled", "failed", "busy", "refused"] {
            // Zero is told too, from the start.
            drop(all.requests.get_or_create(&[("outcome", outcome)]));
        }
        Self { registry, ..all }
    }
}

fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// The recent past.
    pub fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a question that was not taken: `busy` or `refused`.
    pub fn refused(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Everything as OpenMetrics text.
    pub fn text(&self, status: &Status) -> String {
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        set(&self.captured, status.live.captured);
        set(&self.reconnects, status.live.reconnects);
        set(&self.caps_changes, status.live.caps_changes);
        for (stage, count) in drops(status) {
            set(&self.dropped.get_or_create(&[("stage", stage)]), count);
        }
        self.pending.set(status.pending as f64);
        self.window.set(status.window as f64);
        for (kind, bytes) in budget::used() {
            self.memory.get_or_create(&[("kind", kind)]).set(bytes as f64);
        }
        self.written()
    }

    /// What was counted, and what the sensors say now.
    fn written(&self) -> String {
        // Held until the text is written: another scrape would clear what this one has set.
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = meter.read();
        tell(&self.power, "rail", reading.watts);
        tell(&self.temperature, "zone", reading.celsius);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// What sensors say now; those that fell silent are no longer told.
fn tell(family: &Family<Sensor, Level>, label: &'static str, values: BTreeMap<String, f64>) {
    family.clear();
    for (name, value) in values {
        family.get_or_create(&[(label, name)]).set(value);
    }
}

/// Frames lost, by where: in the source, on the way to the encoder, because answers pinned the memory, because encoding failed.
pub fn drops(status: &Status) -> [(&'static str, u64); 4] {
    [
        ("source", status.live.dropped_source),
        ("handover", status.live.dropped_handover),
        ("pinned", status.dropped_pinned),
        ("failed", status.failed_frames),
    ]
}

impl Observer for Metrics {
    fn frame(&self, _frame: &Arc<Frame>, look: &Look) {
        self.encode.observe(look.encode_ms / 1e3);
        if !look.taken {
            return;
        }
        let mut recent = self.recent();
        (recent.encode_ms, recent.prefill_ms) = (look.encode_ms, look.prefill_ms);
        if recent.times.len() >= RATE_FRAMES {
            recent.times.pop_front();
        }
        recent.times.push_back(Instant::now());
    }

    fn answer(&self, _question: &Question, outcome: &Result<Answer>) {
        let word = match outcome {
            Ok(_) => "answered",
            Err(Error::Interrupted) => "cancelled",
            // The request is at fault: counted as refused where it is answered.
            Err(Error::Argument(_) | Error::Context { .. }) => return,
            Err(_) => "failed",
        };
        self.requests.get_or_create(&[("outcome", word)]).inc();
        let Ok(answer) = outcome else { return };
        let t = &answer.timings;
        self.prefill.observe(t.prefill_ms / 1e3);
        self.ttft.observe(t.ttft_ms / 1e3);
        self.age.observe(answer.newest_age_ms as f64 / 1e3);
        self.tokens.inc_by(t.output_tokens as u64);
        let mut recent = self.recent();
        let took = (t.prefill_ms + t.decode_ms) / 1e3;
        recent.answer_s = if recent.answers == 0 { took } else { 0.7 * recent.answer_s + 0.3 * took };
        recent.answers += 1;
        recent.answer = Some(answer.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors_are_told_while_they_speak() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let monitor = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1";
        for (name, text) in [("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1500")] {
            file(&format!("{monitor}/{name}"), text);
        }
        file("sys/class/thermal/thermal_zone0/type", "cpu-thermal");
        file("sys/class/thermal/thermal_zone0/temp", "48500");
        let metrics =
            Metrics { meter: Mutex::new(Meter::open(&Root::new(root.path()))), ..Metrics::default() };
        let text = metrics.written();
        assert!(text.contains("utr_power_watts{rail=\"VDD_IN\"} 7.5\n"), "{text}");
        assert!(text.contains("utr_temperature_celsius{zone=\"cpu-thermal\"} 48.5\n"), "{text}");
        file(&format!("{monitor}/in1_input"), "gone");
        let text = metrics.written();
        assert!(!text.contains("utr_power_watts") && text.contains("utr_temperature_celsius"), "{text}");
    }
}
