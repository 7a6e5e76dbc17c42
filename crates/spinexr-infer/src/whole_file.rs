//! Files and folders that appear whole or not at all: written under a temporary name beside their place,
//! synced, then renamed.

use crate::InferError;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file in the making. It takes its name with [`WholeFile::finish`]; dropped before, it leaves nothing.
#[derive(Debug)]
pub(crate) struct WholeFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl WholeFile {
    /// Begins a file that will be called `path`; its folder must exist.
    pub(crate) fn create(path: &Path) -> Result<Self, InferError> {
        let file = builder(0o666)
            .prefix(".spinexr-")
            .tempfile_in(parent(path))
            .map_err(InferError::io(path, "create a file here"))?;
        Ok(Self { path: path.to_owned(), writer: BufWriter::new(file) })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), InferError> {
        self.writer.write_all(bytes).map_err(InferError::io(&self.path, "write"))
    }

    /// The file gets its name, replacing what was there.
    pub(crate) fn finish(self) -> Result<(), InferError> {
        let path = self.path;
        let temp = self
            .writer
            .into_inner()
            .map_err(|e| InferError::Io { path: path.clone(), action: "write", source: e.into_error() })?;
        temp.as_file().sync_all().map_err(InferError::io(&path, "sync"))?;
        temp.persist(&path).map_err(|e| InferError::Io {
            path: path.clone(),
            action: "rename",
            source: e.error,
        })?;
        sync_folder(parent(&path));
        Ok(())
    }
}

/// Writes a whole file at once.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), InferError> {
    let mut file = WholeFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Writes a folder with the given files. An older folder of that name is replaced when it holds
/// `marker`, which shows that it is of the same kind; any other folder is left alone, as an error.
pub(crate) fn write_folder(path: &Path, marker: &str, files: &[(&str, &[u8])]) -> Result<(), InferError> {
    let io = |action| InferError::io(path, action);
    let beside = parent(path);
    fs::create_dir_all(beside).map_err(io("create the folder around it"))?;
    let occupied = fs::symlink_metadata(path).is_ok();
    if occupied && !path.join(marker).is_file() {
        let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty {
            let reason = format!("the place is taken, and not by a folder with {marker}");
            return Err(io("write")(std::io::Error::new(std::io::ErrorKind::AlreadyExists, reason)));
        }
    }

    let fresh = builder(0o777).prefix(".spinexr-").tempdir_in(beside).map_err(io("create a folder beside it"))?;
    for (name, bytes) in files {
        let place = fresh.path().join(name);
        let mut file = File::create(&place).map_err(InferError::io(&place, "create"))?;
        file.write_all(bytes).map_err(InferError::io(&place, "write"))?;
        file.sync_all().map_err(InferError::io(&place, "sync"))?;
    }
    sync_folder(fresh.path());

    // A folder with files in it cannot be renamed over, so the older one steps aside first and is deleted
    // when the new one has its name.
    let aside = if occupied {
        let aside = builder(0o777).prefix(".spinexr-old-").tempdir_in(beside).map_err(io("move the older one"))?;
        fs::rename(path, aside.path().join("old")).map_err(io("move the older one"))?;
        Some(aside)
    } else {
        None
    };
    if let Err(error) = fs::rename(fresh.path(), path) {
        if let Some(aside) = &aside {
            fs::rename(aside.path().join("old"), path).map_err(io("put back the older one"))?;
        }
        return Err(io("rename")(error));
    }
    // The folder has moved: the guard must not look for it under its temporary name.
    let _ = fresh.keep();
    sync_folder(beside);
    Ok(())
}

/// Temporary names with the permissions that an ordinary new file or folder would get: `mode` less the
/// user's mask, and not `0o600`, which is what temporary files have by default.
#[cfg_attr(not(unix), allow(unused_variables, unused_mut, reason = "permissions are Unix's"))]
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    builder
}

fn parent(path: &Path) -> &Path {
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
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = WholeFile::create(&dir.path().join("a.txt")).unwrap();
        file.write(b"half").unwrap();
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
        assert!(write_folder(&other, "mark", &[("mark", b"3")]).is_err());
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
