//! Files where there are no Unix modes: the directory's permissions protect the login.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    path::Path,
};

use crate::store::StoreError;

/// The standard library does not say which file it is. On Windows an open file cannot be replaced anyway.
#[derive(PartialEq, Eq)]
pub(super) struct Identity;

impl Identity {
    pub(super) fn of(_: &Metadata) -> Self {
        Self
    }
}

pub(super) fn options() -> OpenOptions {
    File::options()
}

/// `None` where nothing is; `false` for a link, a directory, a device.
pub(super) fn is_plain(path: &Path) -> io::Result<Option<bool>> {
    match fs::symlink_metadata(path) {
        Ok(file) => Ok(Some(file.is_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read_back(path: &Path) -> Result<Option<File>, StoreError> {
    match is_plain(path).map_err(StoreError::unavailable)? {
        None => Ok(None),
        Some(false) => Err(StoreError::NotPrivate),
        Some(true) => match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::unavailable(error)),
        },
    }
}

/// Directories cannot be flushed here; the file system's journal has to do.
pub(super) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
