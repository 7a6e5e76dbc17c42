//! Files and folders that appear whole or not at all: written under a temporary name beside their place,
//! synced, then renamed.
//!
//! This is the one place in this crate that touches a disk. It is here because every crate that writes
//! must keep the same rule.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// A file in the making. It takes its name with [`WholeFile::finish`]; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl WholeFile {
    /// Begins a file that will be called `path`, in a folder that is made where it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or refuses a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = folder_of(path);
        fs::create_dir_all(folder)?;
        let file = builder(0o666).tempfile_in(folder)?;
        Ok(Self { path: path.to_owned(), writer: BufWriter::new(file) })
    }

    /// The file gets its name, replacing what was there.
    ///
    /// # Errors
    /// When the disk refuses; nothing is left under the name that was not there before.
    pub fn finish(self) -> io::Result<()> {
        let temp = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        temp.as_file().sync_all()?;
        temp.persist(&self.path).map_err(|e| e.error)?;
        sync_folder(folder_of(&self.path));
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes `bytes` to `path`, replacing what was there in one step that survives a kill at any moment.
///
/// # Errors
/// When the disk refuses; nothing half written is left.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A new folder in the making: under a temporary name beside its own until it is finished, gone if it never is.
#[derive(Debug)]
pub struct WholeFolder {
    path: PathBuf,
    fresh: TempDir,
}

impl WholeFolder {
    /// Begins a folder that will be called `path`.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] for a place that is taken, by more than an empty folder; otherwise what the
    /// disk says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let beside = folder_of(path);
        fs::create_dir_all(beside)?;
        if fs::symlink_metadata(path).is_ok() {
            let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            if !is_empty {
                let reason = "the place is taken, and not by an empty folder";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
            }
        }
        Ok(Self { path: path.to_owned(), fresh: builder(0o777).tempdir_in(beside)? })
    }

    /// Where its files go until it is finished.
    pub fn path(&self) -> &Path {
        self.fresh.path()
    }

    /// The folder gets its name.
    ///
    /// # Errors
    /// When the disk refuses, or the place was taken meanwhile.
    pub fn finish(self) -> io::Result<()> {
        sync_folder(self.fresh.path());
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::rename(self.fresh.path(), &self.path)?;
        // The folder has moved: the guard must not look for it under its temporary name.
        let _ = self.fresh.keep();
        sync_folder(folder_of(&self.path));
        Ok(())
    }
}

/// Writes a folder with the given files. An older folder of that name is replaced when it holds `marker`,
/// which shows that it is of the same kind; any other folder that is not empty is left alone.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] for a place taken by something else; otherwise what the disk says.
pub fn write_folder(path: &Path, marker: &str, files: &[(&str, &[u8])]) -> io::Result<()> {
    let beside = folder_of(path);
    fs::create_dir_all(beside)?;
    let occupied = fs::symlink_metadata(path).is_ok();
    if occupied && !path.join(marker).is_file() {
        let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            let reason = format!("the place is taken, and not by a folder with {marker}");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
    }

    let fresh = builder(0o777).tempdir_in(beside)?;
    for (name, bytes) in files {
        let mut file = File::create(fresh.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    sync_folder(fresh.path());

    // A folder with files in it cannot be renamed over, so the older one steps aside first and is deleted
    // when the new one has its name.
    let aside = if occupied {
        let aside = builder(0o777).tempdir_in(beside)?;
        fs::rename(path, aside.path().join("old"))?;
        Some(aside)
    } else {
        None
    };
    if let Err(error) = fs::rename(fresh.path(), path) {
        if let Some(aside) = &aside {
            fs::rename(aside.path().join("old"), path)?;
        }
        return Err(error);
    }
    // The folder has moved: the guard must not look for it under its temporary name.
    let _ = fresh.keep();
    sync_folder(beside);
    Ok(())
}

/// Temporary names with the permissions that an ordinary new file or folder would get: `mode` less the
/// user's mask, where temporary files are private by default.
#[cfg_attr(not(unix), allow(unused_variables, unused_mut, reason = "permissions are Unix's"))]
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".spinexr-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    builder
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a rename durable where the system can: a folder cannot be synced everywhere, and the file's own
/// bytes are safe already, so a refusal is no error.
fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write(&path, b"first").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        write(&dir.path().join("new/folder/a.bin"), b"x").unwrap();
        assert_eq!(fs::read(dir.path().join("new/folder/a.bin")).unwrap(), b"x");
        assert!(write(&path.join("below a file"), b"x").is_err());
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = WholeFile::create(&dir.path().join("a.txt")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_replaces_only_its_own_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_folder(&path, "mark", &[("mark", b"1"), ("old", b"o")]).unwrap();
        write_folder(&path, "mark", &[("mark", b"2")]).unwrap();
        assert_eq!(fs::read(path.join("mark")).unwrap(), b"2");
        assert!(!path.join("old").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let other = dir.path().join("photos");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("cat.jpg"), b"cat").unwrap();
        let error = write_folder(&other, "mark", &[("mark", b"3")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(other.join("cat.jpg").exists());
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_ordinary_ones() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), b"").unwrap();
        write(&dir.path().join("ours"), b"").unwrap();
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("ours"), mode("plain"));
    }
}
