//! Files that appear whole or not at all: temporary name, sync, rename.

use crate::TrainError;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes `bytes` to `path`, replacing what was there in one step that survives a kill at any moment.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temp = builder().tempfile_in(folder).map_err(TrainError::io(path, "create a file here"))?;
    temp.write_all(bytes).map_err(TrainError::io(path, "write"))?;
    temp.as_file().sync_all().map_err(TrainError::io(path, "sync"))?;
    temp.persist(path).map_err(|e| TrainError::io(path, "rename")(e.error))?;
    // Makes the rename durable where the system can; the bytes are safe already, so a refusal is no error.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

// Temporary files are private by default; a run's files are as readable as any other.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".spinexr-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}
