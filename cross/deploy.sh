#!/usr/bin/env bash
# Brings utr to a board: to one that runs, by ssh, or into a root file system before it is flashed. Nothing is built here.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: cross/deploy.sh [options] HOST              to a board that runs, by ssh
       cross/deploy.sh [options] --rootfs DIR      into a root file system before flashing, such as Linux_for_Tegra/rootfs; as root

HOST is what ssh takes; where it is not root, sudo there may ask for a password, with a bundle twice. There a bundle's manifest is judged before the rest of it is sent; then the package is installed, utr bundle install, utr doctor,
utr prepare, restart, wait for /readyz, status. Where a step fails, the bundle, the camera and the package (where this script brought it) that were in use
before serve again. The exit status is not 0.

  --deb FILE        the package [default: the newest utr_*_arm64.deb under the target folder]
  --no-deb          the board has the package; only the bundle is new
  --bundle PATH     also install this bundle: a folder, or a .tar or .tar.gz of one
  --source URI      what the service watches, written into /etc/default/utr: /dev/video2, csi://0, rtsp://…
  --prepare ARGS    what encodes the frames, in one word: "--encoder ort --provider tensorrt" [default: what UTR_ARGS in /etc/default/utr says]
  --enable          also start the service at every boot
  --stop            stop the service meanwhile: for boards that have memory for one model only; a bundle is then judged after it was sent
  --timeout S       longest wait for /readyz, in seconds [default: 120]
  --no-wait         do not wait for it: without a camera it never comes
  --board NAME      with --rootfs: the board that will hold it, such as jetson-orin-nano; a bundle that does not fit there is refused
  --dry-run         print the commands and run none
  --help            print this
USAGE
}

here=$(cd "$(dirname "$0")" && pwd)
say() { echo "deploy: $*" >&2; }
fail() { say "$*"; exit 2; }

deb="" no_deb="" bundle="" rootfs="" host="" enable="" stop="" dry="" profile="" source=""
board=() prepare=()
while [ $# -gt 0 ]; do
    case $1 in
        --deb | --bundle | --source | --prepare | --timeout | --rootfs | --board) [ $# -gt 1 ] || fail "$1 needs a value; see --help" ;;
    esac
    case $1 in
        --deb) deb=$2; shift ;;
        --bundle) bundle=${2%/}; shift ;;
        --rootfs) rootfs=${2%/}; shift ;;
        --board) profile=$2; shift ;;
        --source) source=$2; shift ;;
        --prepare) prepare=("$1" "$2"); board+=("$1" "$2"); shift ;;
        --timeout) board+=("$1" "$2"); shift ;;
        --no-deb) no_deb=yes ;;
        --enable) enable=yes ;;
        --stop | --no-wait) board+=("$1"); [ "$1" != --stop ] || stop=yes ;;
        --dry-run) dry=yes ;;
        --help | -h) usage; exit 0 ;;
        -*) fail "$1 is unknown; see --help" ;;
        *) [ -z "$host" ] || fail "$host and $1: one board at a time"; host=$1 ;;
    esac
    shift
done
if [ -n "$host" ] && [ -n "$rootfs" ]; then fail "$host and --rootfs $rootfs: one of both"; fi
if [ -n "$rootfs" ] && [ ${#board[@]} -gt 0 ]; then fail "${board[0]} is for a board that runs, not for --rootfs"; fi
if [ -n "$host" ] && [ -n "$profile" ]; then fail "--board is for --rootfs; a board that runs is asked itself"; fi
if [ -n "$profile" ] && [ -z "$bundle" ]; then fail "--board is for a --bundle, which it is compared with"; fi
if [ -z "$host$rootfs" ]; then usage >&2; exit 2; fi
if [ -n "$no_deb" ] && [ -z "$bundle$source" ]; then fail "--no-deb without --bundle or --source leaves nothing to do"; fi

if [ -z "$deb" ] && [ -z "$no_deb" ]; then
    target=${CARGO_TARGET_DIR:-$here/../target}
    # shellcheck disable=SC2012 # the newest one
    deb=$(ls -t "$target"/cross/out/utr_*_arm64.deb "$target"/*/debian/utr_*_arm64.deb 2> /dev/null | head -n 1 || true)
    [ -n "$deb" ] || fail "no utr_*_arm64.deb under $target; run: make cross (or name one with --deb)"
fi
[ -z "$deb" ] || [ -f "$deb" ] || fail "--deb $deb: no such file"
[ -z "$bundle" ] || [ -f "$bundle" ] || [ -f "$bundle/manifest.json" ] || fail "--bundle $bundle: neither a bundle's folder nor a .tar of one"

# Prints a command without a camera's password, and runs it unless this is a rehearsal.
run() {
    { printf '+'; printf ' %q' "$@"; echo; } | sed -E 's#//[^/@ ]*@#//***@#g'
    [ -n "$dry" ] || "$@"
}

# The manifest of the bundle and its hash into a folder, and how many bytes the rest has.
manifest() {
    local file
    mkdir -p "$1"
    for file in manifest.json manifest.sha256; do
        if [ -d "$bundle" ]; then
            cp "$bundle/$file" "$1/" 2> /dev/null || true
        else
            tar -xOf "$bundle" --wildcards --no-anchored "$file" > "$1/$file" 2> /dev/null || rm -f "$1/$file"
        fi
    done
    [ -s "$1/manifest.json" ] || fail "--bundle $bundle: no manifest.json in it"
    # An archive is unpacked beside itself.
    if [ -d "$bundle" ]; then du -sb "$bundle" | cut -f 1; else echo $(($(stat -c %s "$bundle") + $(gzip -dcf "$bundle" | wc -c))); fi
}

to_board() {
    local files=() package="" bytes
    # The trap sees these when the function has ended.
    sent="" box=""
    there=/var/tmp/utr-deploy.$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
    [ -z "$enable" ] || board+=(--enable)
    [ -z "$source" ] || board+=(--source "$source")
    if [ -n "$deb" ]; then files+=("$deb"); package=$there/$(basename "$deb"); board+=(--deb "$package"); fi
    # What was sent is removed there whatever happens.
    trap 'rm -rf "$box"; [ -z "$sent" ] || run ssh "$host" "rm -rf $there" || true' EXIT
    run ssh "$host" "mkdir -m 700 $there"
    sent=yes
    run scp -q "$here/package/on-board" "${files[@]}" "$host:$there/" || fail "copying to $host failed"
    if [ -n "$bundle" ]; then
        bundle=$(realpath "$bundle")
        box=$(mktemp -d)
        bytes=$(manifest "$box/manifest") || exit
        if [ -z "$stop" ]; then
            run scp -qr "$box/manifest" "$host:$there/" || fail "copying to $host failed"
            # As root, who alone reads the settings that the service will serve with.
            far --check ${package:+--deb "$package"} "${prepare[@]}" --bundle "$there/manifest" --bytes "$bytes" ||
                fail "the bundle was not sent: $host refuses it, or could not be asked (its words are above); nothing there was changed"
        fi
        run scp -qr "$bundle" "$host:$there/" || fail "copying to $host failed"
        board+=(--bundle "$there/$(basename "$bundle")")
    fi
    # From here on the folder is on-board's, which goes back where the connection breaks.
    sent=""
    far "${board[@]}"
}

# Runs on-board there as root; where it fails the folder is gone.
far() {
    local command tty=()
    command=$(printf '%q ' bash "$there/on-board" "$@")
    # sudo may ask for a password.
    [ ! -t 0 ] || tty=(-t)
    run ssh "${tty[@]}" "$host" "if [ \$(id -u) = 0 ]; then $command; else sudo $command; fi || { code=\$?; rm -rf $there; exit \$code; }"
}

to_rootfs() {
    [ -d "$rootfs/etc" ] || fail "--rootfs $rootfs: no root file system (it has no etc/)"
    [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "writing into $rootfs needs root; run this with sudo"
    local utr=${UTR:-${CARGO_TARGET_DIR:-$here/../target}/release/utr}
    [ -z "$bundle" ] || [ -x "$utr" ] || utr=$(command -v utr) || fail "--bundle needs utr on this machine too: cargo build --release, or UTR=/path/to/utr"
    [ -z "$bundle" ] || [ -d "$bundle" ] || fail "--bundle $bundle: unpack it first (tar -xf), here it must be a folder"
    if [ -n "$bundle" ] && [ -n "$profile" ]; then
        run "$utr" doctor --board "$profile" --bundle "$bundle" || fail "$bundle is not for $profile; nothing was written"
    fi
    if [ -z "$deb" ]; then
        :
    elif chroot "$rootfs" /bin/true 2> /dev/null; then
        local known
        # shellcheck disable=SC2016 # dpkg's own
        known=$(chroot "$rootfs" dpkg-query -W -f='${Status}' utr 2> /dev/null || true)
        run cp "$deb" "$rootfs/tmp/utr.deb"
        run chroot "$rootfs" dpkg --install /tmp/utr.deb || {
            # What was not there before is taken out again; settings and bundles of an older one stay.
            [ -n "$known" ] || run chroot "$rootfs" dpkg --purge utr || true
            run rm -f "$rootfs/tmp/utr.deb"
            fail "dpkg failed in the root file system; where packages are missing: chroot $rootfs apt-get install them, then run this again"
        }
        run rm "$rootfs/tmp/utr.deb"
    else
        say "programs of $rootfs do not run here (apt install qemu-user-static); the files are unpacked, and dpkg there will not list the package"
        # Not dpkg-deb --extract, which would replace a link /lib by a folder.
        run bash -c 'set -o pipefail; dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"' unpack "$deb" "$rootfs"
        run systemd-sysusers "--root=$rootfs" utr.conf
        # A camera's URI may hold its password; systemd reads it as root.
        run chmod 600 "$rootfs/etc/default/utr"
        local known
        known=$(find "$rootfs"/usr/lib "$rootfs"/lib/systemd -name 'libsystemd-shared-*.so' 2> /dev/null | sed -nE 's/.*-([0-9]+).*/\1/p' | sort -n | tail -n 1 || true)
        if [ "${known:-0}" -ge 254 ]; then
            run mkdir -p "$rootfs/etc/systemd/system/utr.service.d"
            run ln -sf /usr/lib/utr/back-off.conf "$rootfs/etc/systemd/system/utr.service.d/10-back-off.conf"
        fi
    fi
    # In one step; owner and mode stay.
    # shellcheck disable=SC2016 # expanded by that shell
    [ -z "$source" ] || run bash -c 'cp -p "$1" "$1.new" && { grep -v "^UTR_SOURCE=" "$1"; printf "UTR_SOURCE=%s\n" "$2"; } > "$1.new" && mv "$1.new" "$1"' \
        source "$rootfs/etc/default/utr" "$source"
    [ -z "$bundle" ] || run "$utr" bundle install "$bundle" --store "$rootfs/var/lib/utr/bundles"
    if [ -n "$enable" ]; then
        run mkdir -p "$rootfs/etc/systemd/system/multi-user.target.wants"
        run ln -sfn /lib/systemd/system/utr.service "$rootfs/etc/systemd/system/multi-user.target.wants/utr.service"
    fi
    say "done; after the first boot, on the board: utr doctor && utr prepare"
}

if [ -n "$host" ]; then to_board; else to_rootfs; fi
