//! `cross/deploy.sh` with a board that is this machine: which commands run, in which order, and what a failure undoes.
//!
//! In: stand-ins for ssh, scp, sudo, apt-get, systemctl and utr that write down how they were called, and a server that says ready or not. Out: the
//! commands, and which bundle is current. The stand-in for ssh runs the far side's commands here, so that `on-board` itself is run. Nothing is
//! installed and nothing outside temporary folders is written but the folder that deploy.sh makes on a board.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What each stand-in does after it has written down its name and arguments.
const PROGRAMS: [(&str, &str); 10] = [
    ("ssh", r#"while [ "${1#-}" != "$1" ]; do shift; done; shift; exec sh -c "$*""#),
    (
        "scp",
        r#"for to; do :; done
while [ $# -gt 1 ]; do case $1 in -*) ;; *) cp -r "$1" "${to#*:}" ;; esac; shift; done"#,
    ),
    ("sudo", r#"exec "$@""#),
    ("apt-get", ""),
    ("systemctl", ""),
    ("chroot", "exit 1"),
    (
        "dpkg-deb",
        r#"cd "$(dirname "$0")/.." && mkdir -p usr/bin && cp bin/utr usr/bin/ && exec tar -c ./usr/bin/utr"#,
    ),
    ("systemd-sysusers", ""),
    ("id", "echo 0"),
    (
        "utr",
        r#"[ "$1 $2 $3" != "$FAILING" ] || exit 1
[ "$3" = --check ] || [ "$1 $2" != "$FAILING" ] || exit 1
case "$1 $2 $3" in
    "bundle install --check") [ -f "$4/manifest.json" ] && [ ! -e "$4/weights" ] ;;
    "bundle install --help") [ -e "$LOG.old" ] || echo "  --check" ;;
    "bundle install "*) ln -sfn new "$UTR_BUNDLES/current"; ln -sfn old "$UTR_BUNDLES/previous" ;;
    "bundle rollback "*) ln -sfn old "$UTR_BUNDLES/current" ;;
esac"#,
    ),
];

/// A host and a board.
struct Scene {
    root: tempfile::TempDir,
    port: u16,
}

impl Scene {
    /// The board's service answers with this status code.
    fn new(code: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["bin", "store/old", "store/new", "bundle", "rootfs/etc"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (name, body) in PROGRAMS {
            let path = root.path().join("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\" >> \"$LOG\"\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|stream| answer(stream, code));
            }
        });
        let scene = Self { root, port };
        symlink("old", scene.path("store/current")).unwrap();
        std::fs::write(scene.path("bundle/manifest.json"), "{}").unwrap();
        std::fs::write(scene.path("bundle/weights"), "w").unwrap();
        std::fs::write(scene.path("utr_1_arm64.deb"), "").unwrap();
        scene.defaults("");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `/etc/default/utr` of the board, with a token.
    fn defaults(&self, more: &str) {
        std::fs::write(self.path("token"), "0123456789abcdef\n").unwrap();
        let token = self.path("token");
        let text = format!(
            "UTR_LISTEN=0.0.0.0:{}\nUTR_ARGS=\"--fps 4 --token-file {}\"\n{more}",
            self.port,
            token.display()
        );
        std::fs::write(self.path("defaults"), text).unwrap();
    }

    /// Runs the script; utr's command `failing` fails on the board.
    fn deploy(&self, arguments: &[&str], failing: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/deploy.sh");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let _ = std::fs::remove_file(self.path("log"));
        let mut command = Command::new(script);
        command.args(arguments).current_dir(self.root.path()).env("PATH", path).env("FAILING", failing);
        command.env("LOG", self.path("log")).env("UTR_BUNDLES", self.path("store"));
        command.env("UTR_DEFAULTS", self.path("defaults")).env("UTR", self.path("bin/utr"));
        command.env("UTR_SERVED", self.path("served.deb"));
        command.env("CARGO_TARGET_DIR", self.path("nowhere"));
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// The commands that changed or asked something on the board, without the folder of this deployment.
    fn commands(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let told = ["apt-get", "utr", "systemctl"];
        let lines = log.lines().filter(|line| told.iter().any(|name| line.split(' ').next() == Some(name)));
        lines.map(|line| line.split("/var/tmp/utr-deploy.").next().unwrap().trim_end().to_string()).collect()
    }

    fn current(&self) -> Option<PathBuf> {
        std::fs::read_link(self.path("store/current")).ok()
    }
}

/// Answers one request to `/readyz` with the board's token.
fn answer(mut stream: TcpStream, code: &str) -> std::io::Result<()> {
    let lines: Vec<String> = BufReader::new(stream.try_clone()?)
        .lines()
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let known = lines.first().is_some_and(|line| line.starts_with("GET /readyz "))
        && lines.iter().any(|line| line == "Authorization: Bearer 0123456789abcdef");
    write!(stream, "HTTP/1.0 {} -\r\n\r\n", if known { code } else { "401" })
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const APT: &str = "apt-get install --yes --reinstall --allow-downgrades -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold";
/// With the program of the package where one comes along, before anything is installed.
const CHECK: [&str; 2] = ["utr --version", "utr bundle install --check"];

#[test]
fn a_board_gets_the_package_and_the_bundle_and_is_ready_before_the_script_says_so() {
    let scene = Scene::new("200");
    let arguments = [
        "--deb",
        "utr_1_arm64.deb",
        "--bundle",
        "bundle/",
        "--prepare",
        "--encoder ort",
        "--enable",
        "me@board",
    ];
    let output = scene.deploy(&arguments, "");
    assert!(output.status.success() && text(&output).contains("board: ready"), "{}", text(&output));
    assert_eq!(
        scene.commands(),
        [
            CHECK[0],
            CHECK[1],
            APT,
            "utr prepare --bundle",
            "utr bundle install",
            "utr prepare --encoder ort",
            "utr doctor --encoder ort",
            "systemctl enable utr",
            "systemctl restart utr",
            "systemctl --no-pager --full --lines=0 status utr",
            "utr bundle list",
        ]
    );
    assert_eq!(scene.current(), Some("new".into()));
    // To go back to.
    assert!(scene.path("served.deb").exists());
    // What was sent is gone from the board.
    let log = std::fs::read_to_string(scene.path("log")).unwrap();
    let sent = log.lines().find_map(|line| line.strip_prefix("ssh me@board mkdir -m 700 ")).unwrap();
    assert!(sent.starts_with("/var/tmp/utr-deploy.") && !Path::new(sent).exists(), "{sent}");
}

#[test]
fn whatever_fails_the_old_bundle_is_current_again_and_serves() {
    for (code, failing, last) in [
        ("200", "bundle install", "utr bundle install"),
        ("200", "doctor ", "systemctl restart utr"),
        ("200", "prepare ", "systemctl restart utr"),
        ("503", "", "systemctl restart utr"),
        // The token is not the service's.
        ("401", "", "systemctl restart utr"),
    ] {
        let scene = Scene::new(code);
        let output = scene.deploy(&["--no-deb", "--bundle", "bundle", "--timeout", "1", "board"], failing);
        let commands = scene.commands();
        assert_eq!(output.status.code(), Some(1), "{code} {failing}: {}", text(&output));
        assert_eq!(commands.last().unwrap(), last, "{commands:?}");
        assert_eq!(scene.current(), Some("old".into()), "{commands:?}");
        assert!(text(&output).contains("going back"), "{}", text(&output));
        let undone = commands.contains(&"utr bundle rollback".to_string());
        assert_eq!(undone, failing != "bundle install", "{commands:?}");
        // The bundle that failed is not gone back to.
        assert!(!scene.path("store/previous").is_symlink());
    }
}

#[test]
fn a_bundle_that_does_not_fit_is_refused_before_it_is_sent() {
    for arguments in [
        &["--no-deb", "--bundle", "bundle", "board"][..],
        &["--deb", "utr_1_arm64.deb", "--bundle", "bundle", "board"],
    ] {
        let scene = Scene::new("200");
        let output = scene.deploy(arguments, "bundle install --check");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("the bundle was not sent"), "{}", text(&output));
        assert_eq!(scene.commands(), [CHECK[0], CHECK[1], "utr bundle install --help"]);
        assert_eq!(scene.current(), Some("old".into()));
        let log = std::fs::read_to_string(scene.path("log")).unwrap();
        let sent = log.lines().find_map(|line| line.strip_prefix("ssh board mkdir -m 700 ")).unwrap();
        assert!(!Path::new(sent).exists(), "{sent}");
    }
    // A program from before that question refuses nothing.
    let scene = Scene::new("200");
    std::fs::write(scene.path("log.old"), "").unwrap();
    let output = scene.deploy(&["--no-deb", "--bundle", "bundle", "board"], "bundle install --check");
    assert!(output.status.success() && text(&output).contains("too old"), "{}", text(&output));
    assert_eq!(scene.current(), Some("new".into()));
}

#[test]
fn a_package_that_does_not_serve_gives_way_to_the_one_that_did() {
    let scene = Scene::new("200");
    let output = scene.deploy(&["--deb", "utr_1_arm64.deb", "board"], "doctor ");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("which one served before is not known"), "{}", text(&output));
    std::fs::write(scene.path("served.deb"), "").unwrap();
    let output = scene.deploy(&["--deb", "utr_1_arm64.deb", "board"], "doctor ");
    assert_eq!(output.status.code(), Some(1));
    let commands = scene.commands();
    let back = format!("{APT} {}", scene.path("served.deb").display());
    assert_eq!(commands[commands.len() - 2..], [back, "systemctl restart utr".into()], "{commands:?}");
}

#[test]
fn a_connection_that_breaks_leaves_what_was_there() {
    let scene = Scene::new("503");
    // Whoever reads what the board says goes away after its first words.
    let ssh = r#"#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done; shift
case $1 in *on-board*) sh -c "$*" 2>&1 | head -n 1; exit 255 ;; *) exec sh -c "$*" ;; esac
"#;
    std::fs::write(scene.path("bin/ssh"), ssh).unwrap();
    let defaults = std::fs::read_to_string(scene.path("defaults")).unwrap();
    let arguments =
        ["--no-deb", "--bundle", "bundle", "--stop", "--source", "csi://9", "--timeout", "1", "board"];
    let output = scene.deploy(&arguments, "");
    assert!(!output.status.success(), "{}", text(&output));
    assert_eq!(scene.current(), Some("old".into()));
    assert_eq!(std::fs::read_to_string(scene.path("defaults")).unwrap(), defaults);
    assert_eq!(scene.commands().last().unwrap(), "systemctl restart utr");
}

#[test]
fn the_first_bundle_that_fails_leaves_the_one_that_ships() {
    let scene = Scene::new("503");
    std::fs::remove_file(scene.path("store/current")).unwrap();
    let output = scene.deploy(&["--no-deb", "--bundle", "bundle", "--stop", "--timeout", "1", "board"], "");
    assert_eq!((output.status.code(), scene.current()), (Some(1), None), "{}", text(&output));
    assert!(scene.commands().contains(&"systemctl stop utr".to_string()));
}

#[test]
fn a_bundle_can_come_as_a_tar_and_must_be_the_one_that_is_used() {
    let scene = Scene::new("200");
    let packed =
        Command::new("tar").args(["-czf", "b.tar.gz", "bundle"]).current_dir(scene.root.path()).status();
    assert!(packed.unwrap().success());
    let output = scene.deploy(&["--no-deb", "--bundle", "b.tar.gz", "board"], "");
    assert!(output.status.success(), "{}", text(&output));
    let log = std::fs::read_to_string(scene.path("log")).unwrap();
    assert!(
        log.lines().any(|line| line.starts_with("utr bundle install ") && line.ends_with("/unpacked/bundle")),
        "{log}"
    );
    scene.defaults("UTR_BUNDLE=/opt/other\n");
    let output = scene.deploy(&["--no-deb", "--bundle", "bundle", "board"], "");
    assert!(!output.status.success() && text(&output).contains("/opt/other"), "{}", text(&output));
    assert_eq!(scene.commands(), CHECK);
}

#[test]
fn a_camera_is_named_and_the_services_own_encoder_is_prepared() {
    let scene = Scene::new("503");
    scene
        .defaults("UTR_SOURCE=/dev/video0\nUTR_ARGS=\"--fps 4 --encoder ort --provider=tensorrt --kv q8\"\n");
    let mode = |bits| std::fs::Permissions::from_mode(bits);
    std::fs::set_permissions(scene.path("defaults"), mode(0o640)).unwrap();
    // What sed or a shell could take for something else.
    let camera = "rtsp://me:secret@cam/realmonitor?channel=1&subtype=0|x";
    let output = scene.deploy(&["--no-deb", "--source", camera, "--no-wait", "board"], "");
    assert!(output.status.success(), "{}", text(&output));
    let read = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    let defaults = read("defaults");
    assert!(
        defaults.contains(&format!("UTR_SOURCE={camera}\n")) && !defaults.contains("/dev/video0"),
        "{defaults}"
    );
    let about = std::fs::metadata(scene.path("defaults")).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o640);
    let commands = scene.commands();
    assert!(commands.contains(&"utr prepare --encoder ort --provider tensorrt".into()), "{commands:?}");
    // It is judged by the window that will serve.
    assert!(
        commands.contains(&"utr doctor --encoder ort --provider tensorrt --kv q8".into()),
        "{commands:?}"
    );
    assert!(!text(&output).contains("secret"), "{}", text(&output));

    // A camera that gives no frame is taken back.
    let output = scene.deploy(&["--no-deb", "--source", "csi://9", "--timeout", "1", "board"], "");
    assert_eq!((output.status.code(), read("defaults")), (Some(1), defaults), "{}", text(&output));
    assert_eq!(scene.commands().last().unwrap(), "systemctl restart utr");

    // Settings that somebody removed are made anew.
    std::fs::remove_file(scene.path("defaults")).unwrap();
    let output = scene.deploy(&["--no-deb", "--source", "csi://0", "--no-wait", "board"], "");
    assert_eq!((output.status.code(), read("defaults")), (Some(0), "UTR_SOURCE=csi://0\n".into()));

    let root = scene.path("rootfs/etc/default");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("utr"), "UTR_SOURCE=/dev/video0\nUTR_ARGS=\n").unwrap();
    let output = scene.deploy(&["--no-deb", "--rootfs", "rootfs", "--source", camera], "");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(read("rootfs/etc/default/utr"), format!("UTR_ARGS=\nUTR_SOURCE={camera}\n"));
}

#[test]
fn a_rehearsal_and_a_mistake_touch_nothing() {
    let scene = Scene::new("200");
    let output = scene.deploy(&["--dry-run", "--deb", "utr_1_arm64.deb", "board"], "");
    assert!(output.status.success(), "{}", text(&output));
    for part in ["+ ssh board mkdir", "+ scp -q", "on-board"] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    for (arguments, word) in [
        (&[][..], "usage:"),
        (&["board"], "make cross"),
        (&["--deb", "none.deb", "board"], "none.deb"),
        (&["--no-deb", "board"], "nothing to do"),
        (&["--no-deb", "--bundle", "rootfs", "board"], "rootfs"),
        (&["--no-deb", "--bundle", "bundle", "one", "two"], "one board"),
        (&["--speed", "board"], "--speed is unknown"),
        (&["--deb"], "needs a value"),
        (&["--no-deb", "--bundle", "bundle", "--rootfs", "bundle"], "no root file system"),
        (
            &["--no-deb", "--bundle", "bundle", "--rootfs", "rootfs", "--stop"],
            "--stop is for a board that runs",
        ),
        (
            &["--no-deb", "--bundle", "bundle", "--board", "jetson-thor", "me@board"],
            "--board is for --rootfs",
        ),
    ] {
        let output = scene.deploy(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(word), "{arguments:?}: {}", text(&output));
    }
    assert!(!scene.path("log").exists() || scene.commands().is_empty());
    let help = scene.deploy(&["--help"], "");
    assert!(help.status.success() && text(&help).contains("--rootfs"));
}

#[test]
fn a_root_file_system_gets_the_files_the_user_the_bundle_and_the_link_that_enables() {
    let scene = Scene::new("200");
    let settings = scene.path("rootfs/etc/default/utr");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "").unwrap();
    let arguments = ["--rootfs", "rootfs", "--deb", "utr_1_arm64.deb", "--bundle", "bundle", "--enable"];
    let output = scene.deploy(&arguments, "");
    assert!(output.status.success(), "{}", text(&output));
    let log = std::fs::read_to_string(scene.path("log")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("id ")).collect();
    assert_eq!(
        lines,
        [
            "chroot rootfs /bin/true",
            "dpkg-deb --fsys-tarfile utr_1_arm64.deb",
            "systemd-sysusers --root=rootfs utr.conf",
            "utr bundle install bundle --store rootfs/var/lib/utr/bundles",
        ]
    );
    assert_eq!(std::fs::metadata(&settings).unwrap().permissions().mode() & 0o777, 0o600);
    let link = scene.path("rootfs/etc/systemd/system/multi-user.target.wants/utr.service");
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/lib/systemd/system/utr.service"));
}
