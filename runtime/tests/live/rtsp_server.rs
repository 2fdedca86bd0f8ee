//! A network camera for tests: GStreamer's RTSP server in a process of its own, so that it can be killed.
//!
//! The process is this test program again, asked for one ignored test, which serves until it is killed.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;

/// Who may watch.
pub const USER: &str = "us-er";
/// As decoded.
const PASSWORD: &str = "ge:heim@";
/// Pixels.
pub const WIDTH: usize = 160;
/// Pixels.
pub const HEIGHT: usize = 120;
/// Tells the process its port.
const PORT: &str = "UTR_TEST_RTSP_PORT";

/// The server's process; killed when dropped.
pub struct Server(Child);

impl Server {
    /// Starts one on this port; it answers a little later.
    pub fn start(port: u16) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "rtsp_server::serves_until_it_is_killed"])
            .env(PORT, port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL: no goodbye reaches the client.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens there.
pub fn wait_for(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the RTSP server does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "the network camera's own process, started by other tests"]
fn serves_until_it_is_killed() {
    let Ok(port) = std::env::var(PORT) else { return };
    gst::init().unwrap();
    let server = rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port);

    let auth = rtsp::RTSPAuth::new();
    let token = rtsp::RTSPToken::builder().field("media.factory.role", "viewer").build();
    auth.add_basic(rtsp::RTSPAuth::make_basic(USER, PASSWORD).as_str(), &token);
    server.set_auth(Some(&auth));

    let factory = rtsp::RTSPMediaFactory::new();
    // The sound comes first: a client must not take it for the picture.
    factory.set_launch(&format!(
        "( audiotestsrc is-live=true ! audioconvert ! rtpL16pay name=pay0 pt=97 \
         videotestsrc is-live=true ! video/x-raw,width={WIDTH},height={HEIGHT},framerate=25/1 ! \
         x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay1 pt=96 config-interval=-1 )"
    ));
    factory.set_shared(true);
    let may = gst::Structure::builder("viewer")
        .field("media.factory.access", true)
        .field("media.factory.construct", true)
        .build();
    factory.add_role_from_structure(&may);
    server.mount_points().unwrap().add_factory("/test", factory);
    let _attached = server.attach(None).unwrap();
    gst::glib::MainLoop::new(None, false).run();
}
