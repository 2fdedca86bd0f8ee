//! Counts what a live source lost on the way to this process.
//!
//! Comes in: the buffers that pass two pads of a pipeline. Goes out: how many frames the source skipped in its own
//! numbering, and how many lay in the `appsink` until a newer one took their place. It changes nothing but the buffers'
//! numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

/// The source's own numbers stop here; `u64::MAX` is GStreamer's word for "none".
const NONE: u64 = gst::ffi::GST_BUFFER_OFFSET_NONE;

/// What was counted; shared with the pads' probes.
#[derive(Debug)]
pub struct Arrivals {
    last: AtomicU64,
    skipped: AtomicU64,
    arrived: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { last: AtomicU64::new(NONE), skipped: AtomicU64::new(0), arrived: AtomicU64::new(0) }
    }
}

impl Arrivals {
    /// Starts to count on a pipeline that does not play yet. The source's numbers are read where it sends them, as decoders
    /// drop them; a user's pipeline has no known source and is read at its end.
    pub fn watch(self: &Arc<Self>, pipeline: &gst::Pipeline, sink: &gst_app::AppSink) {
        let Some(end) = sink.static_pad("sink") else { return };
        let source = pipeline.by_name("utr_source").and_then(|source| source.static_pad("src"));
        let numbers = Arc::clone(self);
        source.as_ref().unwrap_or(&end).add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                numbers.read(buffer.offset(), buffer.offset_end());
            }
            gst::PadProbeReturn::Ok
        });
        let arrivals = Arc::clone(self);
        end.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer_mut() {
                let number = arrivals.arrived.fetch_add(1, Ordering::Relaxed);
                // Only the header is written; pixels are shared.
                buffer.make_mut().set_offset(number);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// A buffer's own number. Sources that number frames end each one past it; byte offsets do not look like that.
    fn read(&self, offset: u64, end: u64) {
        if offset == NONE || end != offset.wrapping_add(1) {
            return;
        }
        let last = self.last.swap(offset, Ordering::Relaxed);
        if last != NONE {
            self.skipped.fetch_add(offset.saturating_sub(last.saturating_add(1)), Ordering::Relaxed);
        }
    }

    /// Frames the source skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_a_sources_numbers_are_counted_and_byte_offsets_are_not() {
        let arrivals = Arrivals::default();
        for number in [7, 8, 11, 12, 0, 1, 5] {
            arrivals.read(number, number + 1);
        }
        assert_eq!(arrivals.skipped(), 2 + 3);
        arrivals.read(4096, 8192);
        arrivals.read(NONE, NONE);
        arrivals.read(6, 7);
        assert_eq!(arrivals.skipped(), 5);
    }
}
