//! Files where there are no Unix modes: the directory's permissions protect the login.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    path::Path,
};

use crate::store::StoreError;

/// The standard library does not say which file it is. What [`options`] opens on Windows cannot be replaced while it is open.
#[derive(PartialEq, Eq)]
pub(super) struct Identity;

impl Identity {
    pub(super) fn of(_: &Metadata) -> Self {
        Self
    }
}

#[cfg(not(windows))]
pub(super) fn options() -> OpenOptions {
    File::options()
}

/// Others may read and write, as ever, but not delete or rename what is open: the lock's file stays the one that is locked.
#[cfg(windows)]
pub(super) fn options() -> OpenOptions {
    use std::os::windows::fs::OpenOptionsExt;

    const FILE_SHARE_READ: u32 = 1;
    const FILE_SHARE_WRITE: u32 = 2;
    let mut options = File::options();
    options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE);
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

pub(super) fn read_back(path: &Path) -> Result<Option<File>, StoreError> {
    match is_plain(path).map_err(super::failed(path))? {
        None => Ok(None),
        Some(false) => Err(StoreError::NotPrivate),
        Some(true) => match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(super::failed(path)(error)),
        },
    }
}

/// Directories cannot be flushed here; the file system's journal has to do.
pub(super) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
