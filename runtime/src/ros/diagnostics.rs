//! `/diagnostics`: how the node is, once a second.
//!
//! Comes in: what the session, the topic and the outbox counted. Goes out: a diagnostic_msgs/msg/DiagnosticArray with three parts, the source, the window
//! and the answers. A part warns for as long as something is missing or was lost since the report before; it never forgets its totals. It measures
//! nothing itself and does not send.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::messages::{DiagnosticArray, DiagnosticStatus, Header, KeyValue, Level, Time};
use super::node::Images;
use super::outbox::Outbox;
use crate::capture::live::LiveState;
use crate::session::Status;
use crate::watch::turn_after;

/// Time between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// Questions so far.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// Answered.
    pub answered: u64,
    /// Taken, but not answered.
    pub failed: u64,
    /// Not taken.
    pub refused: u64,
    /// Why the last one of either was not answered.
    pub last_error: Option<String>,
}

/// What DDS had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Replies.
    pub replies: u64,
    /// Answers.
    pub answers: u64,
    /// Alerts.
    pub alerts: u64,
}

impl From<&Outbox> for Lost {
    fn from(outbox: &Outbox) -> Self {
        Self { replies: outbox.replies.lost(), answers: outbox.answers.lost(), alerts: outbox.alerts.lost() }
    }
}

/// Everything that a report says.
pub struct Facts<'a> {
    /// What the session counted.
    pub session: &'a Status,
    /// What came on the topic; none where the source is another.
    pub images: Option<&'a Images>,
    /// Questions so far.
    pub questions: &'a Questions,
    /// What was not sent.
    pub lost: Lost,
}

/// Makes reports.
pub struct Reporter {
    node: String,
    source: String,
    /// Frames that the window can hold.
    frames: usize,
    due: Instant,
    /// What was lost by the report before, for each part.
    before: [u64; 3],
}

impl Reporter {
    /// For the node of this name, whose source is called so and whose window holds so many frames.
    pub fn new(node: &str, source: String, frames: usize) -> Self {
        Self { node: node.trim_matches('/').into(), source, frames, due: Instant::now(), before: [0; 3] }
    }

    /// Whether the next report is due; one that was missed is not made up for.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.due;
        if due {
            self.due = turn_after(self.due, EVERY, now);
        }
        due
    }

    /// The report now.
    pub fn report(&mut self, facts: &Facts) -> DiagnosticArray {
        let parts = [self.source_part(facts), self.window_part(facts), self.answers_part(facts)];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let stamp = Time::from_nanos(i64::try_from(now).unwrap_or(i64::MAX));
        let mut status = Vec::with_capacity(parts.len());
        for (part, before) in parts.into_iter().zip(&mut self.before) {
            let new = part.lost.saturating_sub(*before);
            *before = part.lost;
            status.push(part.finish(&self.node, &self.source, new));
        }
        DiagnosticArray { header: Header { stamp, frame_id: String::new() }, status }
    }

    fn source_part(&self, facts: &Facts) -> Part {
        let live = &facts.session.live;
        let error = || live.last_error.clone().unwrap_or_else(|| "no reason given".into());
        let (state, level, message) = match &live.state {
            LiveState::Opening => ("opening", Level::Warn, "being opened; no frame yet".into()),
            LiveState::Running => ("running", Level::Ok, "running".into()),
            LiveState::Waiting { attempt, retry_in_ms, reason } => {
                let wait = *retry_in_ms as f64 / 1e3;
                (
                    "waiting",
                    Level::Error,
                    format!("away ({reason}); opened again in {wait:.1} s, attempt {attempt}"),
                )
            }
            LiveState::Ended => ("ended", Level::Warn, "came to its end".into()),
            LiveState::Failed => ("failed", Level::Error, format!("failed: {}", error())),
        };
        let refused = facts.images.map_or(0, |images| images.refused);
        let lost = live.dropped_source + live.dropped_handover + refused;
        let mut part = Part::new("source", level, message, lost);
        part.say("state", state);
        part.say("frames read", live.captured);
        part.say("passed over by the asked rate", live.not_due);
        part.say("lost before they were read", live.dropped_source);
        part.say("overwritten before they were encoded", live.dropped_handover);
        if let Some(images) = facts.images {
            part.say("images taken", images.taken);
            part.say("images left out", images.refused);
            for (name, times) in &images.refused_as {
                part.say(&format!("images left out: {name}"), times);
            }
        }
        part.say("times it came back", live.reconnects);
        part.say("changes of size", live.caps_changes);
        part.say("last error", live.last_error.as_deref().unwrap_or_default());
        part
    }

    fn window_part(&self, facts: &Facts) -> Part {
        let session = facts.session;
        let (level, message) = match session.window {
            0 => (Level::Warn, "no frame yet".into()),
            held => (Level::Ok, format!("{held} of {} frames", self.frames)),
        };
        let mut part = Part::new("window", level, message, session.dropped_pinned + session.failed_frames);
        part.say("frames", session.window);
        part.say("frames it can hold", self.frames);
        part.say("frames seen", session.seen);
        part.say("dropped while answers held the memory", session.dropped_pinned);
        part.say("could not be encoded", session.failed_frames);
        let age = session.newest.map(|newest| newest.elapsed().as_millis().to_string());
        part.say("milliseconds since the newest frame", age.unwrap_or_default());
        part.say("last error", session.last_error.as_deref().unwrap_or_default());
        part
    }

    fn answers_part(&self, facts: &Facts) -> Part {
        let (questions, lost) = (facts.questions, facts.lost);
        let gone = questions.failed + questions.refused + lost.replies + lost.answers + lost.alerts;
        let message = format!("{} given, {} pending", questions.answered, facts.session.pending);
        let mut part = Part::new("answers", Level::Ok, message, gone);
        part.say("pending", facts.session.pending);
        part.say("given", questions.answered);
        part.say("failed", questions.failed);
        part.say("refused", questions.refused);
        part.say("replies not sent", lost.replies);
        part.say("answers not sent", lost.answers);
        part.say("alerts not sent", lost.alerts);
        part.say("last error", questions.last_error.as_deref().unwrap_or_default());
        part
    }
}

/// One part of a report.
struct Part {
    name: &'static str,
    level: Level,
    message: String,
    /// All that was lost so far.
    lost: u64,
    values: Vec<KeyValue>,
}

impl Part {
    fn new(name: &'static str, level: Level, message: String, lost: u64) -> Self {
        Self { name, level, message, lost, values: Vec::new() }
    }

    fn say(&mut self, key: &str, value: impl Display) {
        self.values.push(KeyValue { key: key.into(), value: value.to_string() });
    }

    fn finish(self, node: &str, source: &str, new: u64) -> DiagnosticStatus {
        let Self { name, level, mut message, values, .. } = self;
        if new > 0 {
            message += &format!("; {new} lost since the last report");
        }
        DiagnosticStatus {
            level: if new > 0 { level.max(Level::Warn) } else { level },
            name: format!("{node}: {name}"),
            message,
            hardware_id: source.into(),
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::live::LiveStatus;

    fn status(state: LiveState) -> Status {
        let live = LiveStatus {
            state,
            captured: 90,
            not_due: 60,
            delivered: 28,
            dropped_handover: 2,
            waiting: 0,
            dropped_source: 0,
            reconnects: 1,
            caps_changes: 0,
            last_error: Some("unplugged".into()),
        };
        Status {
            live,
            seen: 28,
            dropped_pinned: 0,
            failed_frames: 0,
            last_error: None,
            window: 8,
            pending: 3,
            newest: Some(Instant::now()),
            looked: Some(Instant::now()),
        }
    }

    fn value<'a>(status: &'a DiagnosticStatus, key: &str) -> &'a str {
        &status.values.iter().find(|value| value.key == key).unwrap().value
    }

    #[test]
    fn losses_warn_once_and_stay_counted() {
        let (session, questions) = (status(LiveState::Running), Questions::default());
        let mut reporter = Reporter::new("/robot/utr", "csi://0".into(), 32);
        let mut report = |lost: Lost| {
            let facts = Facts { session: &session, images: None, questions: &questions, lost };
            reporter.report(&facts).status
        };
        let first = report(Lost::default());
        let names: Vec<&str> = first.iter().map(|status| status.name.as_str()).collect();
        assert_eq!(names, ["robot/utr: source", "robot/utr: window", "robot/utr: answers"]);
        // The two frames that were overwritten are new to the first report alone.
        assert_eq!(
            (first[0].level, first[0].message.as_str()),
            (Level::Warn, "running; 2 lost since the last report")
        );
        assert_eq!((first[1].level, first[1].message.as_str()), (Level::Ok, "8 of 32 frames"));
        assert_eq!((value(&first[2], "pending"), first[2].level), ("3", Level::Ok));
        let second = report(Lost { replies: 1, answers: 4, alerts: 0 });
        assert_eq!(
            (second[0].level, value(&second[0], "overwritten before they were encoded")),
            (Level::Ok, "2")
        );
        assert_eq!((second[2].level, value(&second[2], "answers not sent")), (Level::Warn, "4"));
        assert!(second[2].message.ends_with("5 lost since the last report"), "{:?}", second[2]);
        let third = report(Lost { replies: 1, answers: 4, alerts: 0 });
        assert_eq!((third[2].level, value(&third[2], "replies not sent")), (Level::Ok, "1"));
        assert!(first.iter().all(|status| status.hardware_id == "csi://0"));
    }

    #[test]
    fn a_source_that_is_away_is_an_error_with_its_reason() {
        let reason = "the camera is gone".to_string();
        let session = status(LiveState::Waiting { attempt: 3, retry_in_ms: 1500, reason });
        let facts = Facts {
            session: &session,
            images: None,
            questions: &Questions::default(),
            lost: Lost::default(),
        };
        let source = Reporter::new("/utr", "csi://0".into(), 32).report(&facts).status.remove(0);
        assert_eq!((source.level, value(&source, "last error")), (Level::Error, "unplugged"));
        assert!(
            source.message.starts_with("away (the camera is gone); opened again in 1.5 s, attempt 3"),
            "{source:?}"
        );
    }

    #[test]
    fn reports_are_due_once_a_second() {
        let mut reporter = Reporter::new("/utr", String::new(), 1);
        let start = Instant::now();
        let due = (0..3000u64).filter(|i| reporter.is_due(start + Duration::from_millis(10 * i))).count();
        assert_eq!(due, 30);
    }
}
