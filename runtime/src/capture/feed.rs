//! A source that another part of this program feeds: pictures as a network brought them, the newest wins.
//!
//! Comes in: [`RawPicture`]s through a [`Feed`], from any thread. Goes out: frames, made RGB only where they are wanted. A picture that nobody
//! took before the next one came is counted as dropped, and silence past the timeout as a lost source. Who brings the pictures, and how, is not
//! its concern; a feed belongs to one session.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use utr_models::RgbFrame;

use super::{Capture, CaptureOptions, Stamp};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::latest::{Latest, Taken};

/// How often a wait looks for a stop.
const TICK: Duration = Duration::from_millis(50);
/// Longest side of a picture, in pixels.
const MAX_SIDE: usize = 16_384;
/// Frames whose own times are remembered: more than a window of 32 spans, also where frames in between are missed.
const REMEMBERED: usize = 4096;

/// How a picture's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One level.
    Mono,
}

impl Layout {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            Layout::Rgb | Layout::Bgr => 3,
            Layout::Mono => 1,
        }
    }
}

/// A picture as it came, its sizes checked.
#[derive(Clone, Debug)]
pub struct RawPicture {
    layout: Layout,
    width: usize,
    height: usize,
    step: usize,
    data: Vec<u8>,
    time_ns: Option<i64>,
}

impl RawPicture {
    /// A picture of `height` rows of `step` bytes, of which `width` pixels are shown; `time_ns` is its sender's own time.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(
        layout: Layout,
        (width, height): (usize, usize),
        step: usize,
        data: Vec<u8>,
        time_ns: Option<i64>,
    ) -> std::result::Result<Self, String> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(format!("{width}x{height} pixels; sides are 1 to {MAX_SIDE}"));
        }
        if step < width * layout.bytes() {
            return Err(format!(
                "a row of {step} bytes is too short for {width} pixels of {} bytes",
                layout.bytes()
            ));
        }
        if step.checked_mul(height) != Some(data.len()) {
            return Err(format!("{height} rows of {step} bytes were announced, {} bytes came", data.len()));
        }
        Ok(Self { layout, width, height, step, data, time_ns })
    }

    /// The picture, packed.
    ///
    /// # Errors
    /// None that [`RawPicture::new`] lets through.
    pub fn to_rgb(&self) -> Result<RgbFrame> {
        let row = self.width * self.layout.bytes();
        let mut data = Vec::with_capacity(self.width * self.height * 3);
        for line in self.data.chunks_exact(self.step).filter_map(|line| line.get(..row)) {
            match self.layout {
                Layout::Rgb => data.extend_from_slice(line),
                Layout::Bgr => line.chunks_exact(3).for_each(|pixel| data.extend(pixel.iter().rev())),
                Layout::Mono => line.iter().for_each(|level| data.extend([*level; 3])),
            }
        }
        Ok(RgbFrame::new(self.width, self.height, data)?)
    }
}

/// Where pictures are brought. Clones share it.
#[derive(Clone)]
pub struct Feed(Arc<Inside>);

struct Inside {
    name: String,
    pictures: Latest<(RawPicture, Instant)>,
    /// When the first picture came.
    began: OnceLock<Instant>,
    /// Frames a session advanced to, which is how it counts them.
    advanced: AtomicUsize,
    /// Overwritten pictures that were told as dropped already.
    told: AtomicU64,
    /// The newest frames' indices and their sender's times.
    times: Mutex<VecDeque<(usize, i64)>>,
}

impl Feed {
    /// An empty one; the name is for messages.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Arc::new(Inside {
            name: name.into(),
            pictures: Latest::default(),
            began: OnceLock::new(),
            advanced: AtomicUsize::new(0),
            told: AtomicU64::new(0),
            times: Mutex::default(),
        }))
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Brings a picture.
    pub fn put(&self, picture: RawPicture) {
        let now = Instant::now();
        self.0.began.get_or_init(|| now);
        self.0.pictures.put((picture, now));
    }

    /// Pictures brought so far.
    pub fn brought(&self) -> u64 {
        self.0.pictures.passage().put
    }

    /// The sender's time of a session's frame, in nanoseconds, where it gave one and the frame is not long past.
    pub fn time_ns(&self, index: usize) -> Option<i64> {
        let times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().rev().find(|(frame, _)| *frame == index).map(|(_, time)| *time)
    }

    fn remember(&self, index: usize, time_ns: i64) {
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back((index, time_ns));
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.0.name)
    }
}

impl PartialEq for Feed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The side that is read.
pub struct FeedCapture {
    feed: Feed,
    timeout: Duration,
    interrupt: Interrupt,
    current: Option<(usize, RawPicture)>,
    /// Overwritten pictures that earlier openings told.
    told_before: u64,
}

impl FeedCapture {
    /// Reads from now on.
    pub fn open(feed: &Feed, options: &CaptureOptions) -> Self {
        let told_before = feed.0.told.load(Ordering::Relaxed);
        let (timeout, interrupt) = (options.timeout, options.interrupt.clone());
        Self { feed: feed.clone(), timeout, interrupt, current: None, told_before }
    }
}

impl Capture for FeedCapture {
    fn advance(&mut self) -> Result<Option<Stamp>> {
        let end = Instant::now() + self.timeout;
        loop {
            self.interrupt.check()?;
            let left = end.saturating_duration_since(Instant::now());
            match self.feed.0.pictures.take(left.min(TICK)) {
                Taken::Value((picture, came)) => {
                    let began = self.feed.0.began.get().copied().unwrap_or(came);
                    let index = self.feed.0.advanced.fetch_add(1, Ordering::Relaxed);
                    let pts_ms = u64::try_from(came.saturating_duration_since(began).as_millis());
                    self.current = Some((index, picture));
                    return Ok(Some(Stamp { index, pts_ms: pts_ms.unwrap_or(u64::MAX) }));
                }
                Taken::Closed => return Ok(None),
                Taken::Nothing if left.is_zero() => {
                    let seconds = self.timeout.as_secs_f64();
                    let reason =
                        format!("no picture came for {seconds:.1} s; see whether somebody publishes there");
                    return Err(Error::lost(self.feed.name(), reason));
                }
                Taken::Nothing => {}
            }
        }
    }

    fn image(&mut self) -> Result<RgbFrame> {
        let (index, picture) = self
            .current
            .as_ref()
            .ok_or_else(|| Error::capture(self.feed.name(), "no frame was reached yet"))?;
        if let Some(time_ns) = picture.time_ns {
            self.feed.remember(*index, time_ns);
        }
        picture.to_rgb()
    }

    fn live(&self) -> bool {
        true
    }

    fn dropped(&self) -> u64 {
        let overwritten = self.feed.0.pictures.passage().overwritten;
        self.feed.0.told.store(overwritten, Ordering::Relaxed);
        overwritten.saturating_sub(self.told_before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::live::{Backoff, Live, LiveOptions, LiveState, Next};
    use super::*;
    use crate::source::Source;

    const LONG: Duration = Duration::from_secs(60);

    fn level(level: u8, time_ns: Option<i64>) -> RawPicture {
        RawPicture::new(Layout::Mono, (2, 1), 2, vec![level; 2], time_ns).unwrap()
    }

    #[test]
    fn layouts_and_padded_rows_become_rgb() {
        let rgb = |layout, size, step, data: &[u8]| {
            RawPicture::new(layout, size, step, data.to_vec(), None).unwrap().to_rgb().unwrap().data
        };
        assert_eq!(rgb(Layout::Rgb, (1, 2), 4, &[1, 2, 3, 0, 4, 5, 6, 0]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(rgb(Layout::Bgr, (2, 1), 6, &[1, 2, 3, 4, 5, 6]), [3, 2, 1, 6, 5, 4]);
        assert_eq!(rgb(Layout::Mono, (2, 2), 3, &[1, 2, 0, 3, 4, 0]), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
    }

    #[test]
    fn a_session_sees_the_newest_and_counts_the_others_and_silence_is_told() {
        let feed = Feed::new("ros topic /utr/image");
        let wait = Duration::from_millis(20);
        let options = LiveOptions {
            capture: CaptureOptions { timeout: Duration::from_millis(300), ..CaptureOptions::default() },
            backoff: Backoff { first: wait, longest: wait, steady: wait },
            ..LiveOptions::default()
        };
        let live = Live::start(&Source::Feed(feed.clone()), options).unwrap();
        for n in 0..200u8 {
            feed.put(level(n, Some(i64::from(n) * 1000)));
        }
        let mut last = None;
        while last.as_ref().is_none_or(|level| *level != 199) {
            let Next::Frame(frame) = live.next(LONG) else { panic!("{:?}", live.status()) };
            last = Some(frame.image.data[0]);
            assert_eq!(feed.time_ns(frame.stamp.index), Some(i64::from(frame.image.data[0]) * 1000));
        }
        let began = Instant::now();
        let status = loop {
            let status = live.status();
            if matches!(status.state, LiveState::Waiting { .. }) {
                break status;
            }
            assert!(began.elapsed() < LONG, "{status:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.captured + status.dropped_source, 200, "{status:?}");
        assert!(status.last_error.is_some());
        feed.put(level(7, None));
        let Next::Frame(frame) = live.next(LONG) else { panic!("{:?}", live.status()) };
        assert_eq!((frame.image.data[0], feed.time_ns(frame.stamp.index)), (7, None));
    }

    proptest! {
        #[test]
        fn sizes_that_do_not_fit_are_refused_and_the_others_are_read(
            size in (0usize..6, 0usize..6),
            step in prop_oneof![0usize..20, Just(usize::MAX)],
            bytes in 0usize..80,
            mono in any::<bool>(),
        ) {
            let layout = if mono { Layout::Mono } else { Layout::Bgr };
            let fits = size.0 > 0 && size.1 > 0 && step >= size.0 * layout.bytes() && step.checked_mul(size.1) == Some(bytes);
            let picture = RawPicture::new(layout, size, step, vec![9; bytes], None);
            prop_assert_eq!(picture.is_ok(), fits);
            if let Ok(picture) = picture {
                prop_assert_eq!(picture.to_rgb().unwrap().data, vec![9; size.0 * size.1 * 3]);
            }
        }
    }
}
