//! Files that are nobody else's business, on Unix.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::store::StoreError;

/// Which file it is, whatever it is called.
#[derive(PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    pub(super) fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

/// How a file is made that only its owner can read.
pub(super) fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(0o600);
    options
}

/// `None` where nothing is; `false` for a link, a directory, a device.
pub(super) fn is_plain(path: &Path) -> io::Result<Option<bool>> {
    match fs::symlink_metadata(path) {
        Ok(file) => Ok(Some(file.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file that is what it seems: plain, and only its owner's to read.
pub(super) fn read_back(path: &Path) -> Result<Option<File>, StoreError> {
    // A commit may replace the file between the two looks at it; a link stays a link.
    for _ in 0..LOOKS {
        let seen = match fs::symlink_metadata(path) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(super::failed(path)(error)),
        };
        if !seen.is_file() || seen.mode() & OTHERS != 0 {
            return Err(StoreError::NotPrivate);
        }
        match File::open(path) {
            Ok(file) => {
                let opened = file.metadata().map_err(super::failed(path))?;
                if Identity::of(&opened) == Identity::of(&seen) {
                    return Ok(Some(file));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(super::failed(path)(error)),
        }
    }
    Err(StoreError::Busy)
}

/// The move is not durable before the directory is.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

const OTHERS: u32 = 0o077;
const LOOKS: u32 = 16;
