//! The store: which bundle a device uses, replaced and put back in one step.
//!
//! Comes in: a store's folder, and a bundle to install. Goes out: `NAME-HASH/` folders, a link `current` to the one in use and a link `previous` to
//! the one before. A power cut at any moment leaves `current` on the old bundle or on the new one, whole: files are copied under a temporary name,
//! synced, checked, and only then renamed; links are replaced by rename(2). Only these two bundles stay. A program that has loaded a bundle keeps
//! what it loaded; nothing is told or restarted here.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use utr_models::atomic::TEMPORARY_PREFIX;
use utr_models::bundle::{Bundle, MANIFEST, MANIFEST_HASH};
use utr_models::manifest::Manifest;

use crate::board::disk_free;
use crate::budget::Wish;
use crate::encode::Engines;
use crate::error::{Error, Result};
use crate::load;

/// Where a device keeps its bundles.
pub const DEFAULT: &str = "/var/lib/utr/bundles";

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// Digits of the hash in a folder's name.
const DIGITS: usize = 12;
/// How often a locked store is tried again.
const LOCK_TRIES: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Says whether a copied bundle may become current.
pub type Check<'a> = &'a mut dyn FnMut(&Path, &mut dyn Write) -> anyhow::Result<bool>;

/// Called after each step, by its name; tests stop there.
type Step<'a> = &'a mut dyn FnMut(&'static str) -> Result<()>;

/// A folder of bundles.
pub struct Store {
    folder: PathBuf,
    /// Bytes that may still be written there; none where the system does not say.
    free: fn(&Path) -> Option<u64>,
}

impl Store {
    /// The store in this folder, which the first install creates.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), free: disk_free }
    }

    /// The bundle in use, by its own name, so that whoever reads it is not disturbed when another becomes current; none
    /// where none was installed.
    ///
    /// # Errors
    /// [`Error::Bundle`] where `current` leads nowhere.
    pub fn current(&self) -> Result<Option<PathBuf>> {
        self.target(CURRENT)?.map(|name| self.existing(CURRENT, &name)).transpose()
    }

    /// Says by its manifest alone whether there is memory for a bundle, computed and followed so, and room for its copy.
    ///
    /// # Errors
    /// [`Error::Memory`] and [`Error::Bundle`] where there is not, and what is wrong with the manifest.
    pub fn check(&self, source: &Path, run: (Engines, Wish), out: &mut dyn Write) -> anyhow::Result<()> {
        let (manifest, _) = Bundle::manifest_of(source)?;
        self.check_room(source, &manifest, run)?;
        writeln!(out, "room      for {} here", manifest.name)?;
        Ok(())
    }

    /// Copies a bundle, checks the copy, and makes it current; one that is already there is only made current. False where `check` says no,
    /// with nothing changed. What neither `current` nor `previous` names is removed at the end. `run` is how it will be computed and followed.
    ///
    /// # Errors
    /// No room for it (by its manifest, before anything else of it is read), a bundle that is altered, a store that cannot be written or is
    /// being changed by somebody else, and what `check` reports.
    pub fn install(
        &self,
        source: &Path,
        run: (Engines, Wish),
        check: Check<'_>,
        out: &mut dyn Write,
    ) -> anyhow::Result<bool> {
        self.create().map_err(|reason| {
            Error::Bundle(format!(
                "the store {} cannot be written: {reason}; run this as root, or choose another with --store or UTR_BUNDLES",
                self.folder.display()
            ))
        })?;
        let _lock = self.lock()?;
        self.sweep()?;
        let result = self.install_in_steps(source, run, check, out, &mut |_| Ok(()));
        let swept = self.sweep();
        let installed = result?;
        swept?;
        Ok(installed)
    }

    /// As [`Store::install`], but a failure leaves everything as it lies at that moment.
    fn install_in_steps(
        &self,
        source: &Path,
        run: (Engines, Wish),
        check: Check<'_>,
        out: &mut dyn Write,
        step: Step<'_>,
    ) -> anyhow::Result<bool> {
        let (manifest, hash) = Bundle::manifest_of(source)?;
        // A damaged one keeps its name until `current` names the new copy, so that it never leads nowhere.
        let names = [0, 1].map(|part| folder_name(&manifest.name, &hash, part));
        let whole = names.iter().find(|name| Bundle::open(&self.folder.join(name)).is_ok());
        let current = self.target(CURRENT)?;
        let unused = || names.iter().find(|name| Some(*name) != current.as_ref());
        let name = whole.or_else(unused).unwrap_or(&names[0]);
        if whole.is_none() {
            self.check_room(source, &manifest, run)?;
            let bundle = Bundle::open(source)?;
            let copy = self.folder.join(format!("{TEMPORARY_PREFIX}{name}"));
            copy_bundle(&bundle, &copy, step)?;
            if !check(&copy, out)? {
                return Ok(false);
            }
            step("checked")?;
            let folder = self.folder.join(name);
            if folder.exists() {
                self.set_aside(name)?;
            }
            fs::rename(&copy, &folder).map_err(Error::io(&folder))?;
            sync(&self.folder)?;
            step("in place")?;
        }
        let current = current.filter(|name| self.folder.join(name).is_dir());
        let before = current.filter(|before| before == name || !names.contains(before));
        if before.as_ref() != Some(name) {
            // In this order a cut in between leaves the old bundle current and nothing to go back to, never a way back to a third one.
            if let Some(before) = &before {
                self.point(PREVIOUS, before, step)?;
            }
            self.point(CURRENT, name, step)?;
        }
        self.prune(out, step)?;
        self.tell(name, before, out)?;
        Ok(true)
    }

    /// Swaps `current` and `previous`.
    ///
    /// # Errors
    /// [`Error::Bundle`] where there is no other bundle to go back to, and where that one is altered.
    pub fn rollback(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        self.sweep()?;
        self.rollback_in_steps(out, &mut |_| Ok(()))
    }

    fn rollback_in_steps(&self, out: &mut dyn Write, step: Step<'_>) -> anyhow::Result<()> {
        let current = self.target(CURRENT)?;
        let Some(previous) = self.target(PREVIOUS)?.filter(|name| Some(name) != current.as_ref()) else {
            return Err(Error::Bundle(format!(
                "{} names no previous bundle to go back to; removing {CURRENT} there goes back to the bundle that ships",
                self.folder.display()
            ))
            .into());
        };
        Bundle::open(&self.existing(PREVIOUS, &previous)?)?;
        self.point(CURRENT, &previous, step)?;
        if let Some(current) = &current {
            self.point(PREVIOUS, current, step)?;
        }
        self.tell(&previous, current, out)?;
        Ok(())
    }

    fn tell(&self, current: &str, before: Option<String>, out: &mut dyn Write) -> std::io::Result<()> {
        let was = before.map(|before| format!(", before it {before}")).unwrap_or_default();
        writeln!(out, "current   {current} in {}{was}", self.folder.display())?;
        writeln!(
            out,
            "          what runs keeps the bundle it loaded until it is restarted (systemctl restart utr)"
        )
    }

    /// Prints the bundles, and which of them is current.
    ///
    /// # Errors
    /// A store that cannot be read, and a closed output.
    pub fn list(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let (current, previous) = (self.target(CURRENT)?, self.target(PREVIOUS)?);
        let bundles = self.bundles()?;
        if bundles.is_empty() {
            writeln!(out, "none in {}; utr bundle install DIR puts one there", self.folder.display())?;
        }
        for name in bundles {
            let state = match &name {
                name if Some(name) == current.as_ref() => CURRENT,
                name if Some(name) == previous.as_ref() => PREVIOUS,
                _ => "",
            };
            writeln!(out, "{state:<9} {name}")?;
        }
        Ok(())
    }

    /// Nobody else changes the store while this is held.
    fn lock(&self) -> Result<File> {
        let folder = File::open(&self.folder).map_err(Error::io(&self.folder))?;
        // A process that was just started from one that held the lock holds it until it runs its own program.
        for _ in 0..LOCK_TRIES {
            match folder.try_lock() {
                Ok(()) => return Ok(folder),
                Err(TryLockError::Error(reason)) => return Err(Error::io(&self.folder)(reason)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
        Err(Error::Bundle(format!(
            "another utr is changing the store {}; wait until it is done",
            self.folder.display()
        )))
    }

    /// Removes what interrupted work left behind.
    fn sweep(&self) -> Result<()> {
        for name in self.entries()?.into_iter().filter(|name| name.starts_with(TEMPORARY_PREFIX)) {
            let path = self.folder.join(name);
            let folder = fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir());
            if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Takes a bundle's name from its folder, which the next sweep removes.
    fn set_aside(&self, name: &str) -> Result<()> {
        let (folder, aside) =
            (self.folder.join(name), self.folder.join(format!("{TEMPORARY_PREFIX}old-{name}")));
        fs::rename(&folder, &aside).map_err(Error::io(&folder))
    }

    /// The store's folder, open to whoever serves, whatever the caller's umask.
    fn create(&self) -> std::io::Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        fs::set_permissions(&self.folder, Permissions::from_mode(0o755))
    }

    fn check_room(&self, source: &Path, manifest: &Manifest, (engines, wish): (Engines, Wish)) -> Result<()> {
        load::admit(source, engines, wish)?;
        // Folders and half-filled blocks come on top.
        let needed = manifest.files.values().map(|file| file.bytes).sum::<u64>() + (1 << 20);
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        // A store that is not there yet will lie where its parent does.
        let place = self.folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
        match (self.free)(place) {
            Some(free) if needed > free => Err(Error::Bundle(format!(
                "{} needs {} MiB and {} MiB are free in the store {}; nothing was copied: make room, or choose another with --store",
                manifest.name,
                mib(needed),
                free >> 20,
                self.folder.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Lets a link name a folder of the store, from one moment to the next.
    fn point(&self, link: &'static str, name: &str, step: Step<'_>) -> Result<()> {
        let path = self.folder.join(link);
        let new = self.folder.join(format!("{TEMPORARY_PREFIX}{link}"));
        symlink(name, &new).map_err(Error::io(&new))?;
        step("new link")?;
        fs::rename(&new, &path).map_err(Error::io(&path))?;
        sync(&self.folder)?;
        step(link)
    }

    /// Sets aside every bundle that neither link names.
    fn prune(&self, out: &mut dyn Write, step: Step<'_>) -> anyhow::Result<()> {
        let kept = [self.target(CURRENT)?, self.target(PREVIOUS)?];
        for name in self.bundles()?.into_iter().filter(|name| !kept.contains(&Some(name.clone()))) {
            self.set_aside(&name)?;
            writeln!(out, "removed   {name}")?;
            step("removed")?;
        }
        Ok(())
    }

    /// The name a link leads to; none where there is no such link.
    fn target(&self, link: &str) -> Result<Option<String>> {
        let path = self.folder.join(link);
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(Error::io(path)(reason)),
        }
    }

    fn existing(&self, link: &str, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::Bundle(format!(
            "{link} of the store {} names {name}, which is not there; install a bundle again (utr bundle install DIR) or give one with \
             --bundle",
            self.folder.display()
        )))
    }

    /// Folders that this store made of bundles, by name.
    fn bundles(&self) -> Result<Vec<String>> {
        let ours = |name: &String| {
            let digits = name.rsplit_once('-').map_or("", |(_, digits)| digits);
            digits.len() == DIGITS
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !name.starts_with(TEMPORARY_PREFIX)
                && self.folder.join(name).join(MANIFEST).is_file()
        };
        Ok(self.entries()?.into_iter().filter(ours).collect())
    }

    /// Everything in the store, sorted; nothing where there is no store.
    fn entries(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(reason) => return Err(Error::io(&self.folder)(reason)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(&self.folder))?;
        names.sort();
        Ok(names)
    }
}

/// `NAME-HASH`, in characters that need no quotes, with this part of the hash.
fn folder_name(name: &str, hash: &str, part: usize) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).take(64).collect();
    let name = name.trim_start_matches(['.', '-']);
    let name = if name.is_empty() { "bundle" } else { name };
    let digits = hash.get(part * DIGITS..(part + 1) * DIGITS);
    format!("{name}-{}", digits.unwrap_or_default())
}

/// Copies the listed files and syncs everything.
fn copy_bundle(bundle: &Bundle, to: &Path, step: Step<'_>) -> Result<()> {
    let mut folders = vec![to.to_path_buf()];
    for name in bundle.manifest().files.keys().map(String::as_str).chain([MANIFEST, MANIFEST_HASH]) {
        let (source, copy) = (bundle.folder().join(name), to.join(name));
        let parent = copy.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        folders.extend(parent.ancestors().take_while(|folder| *folder != to).map(Path::to_path_buf));
        copy_file(&source, &copy).map_err(Error::io(&copy))?;
        step("one file")?;
    }
    for folder in folders {
        // Services run as another user than whoever installs.
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(Error::io(&folder))?;
        sync(&folder)?;
    }
    step("copied")
}

fn copy_file(source: &Path, copy: &Path) -> std::io::Result<()> {
    let mut from = File::open(source)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(copy)?;
    std::io::copy(&mut from, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

/// Makes a folder's entries outlast a power cut.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
