//! From a path to a text, within bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::MAX_BYTES;

/// Why a file could not be read as text.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory.
    #[error("{} is a directory, not a file", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// It is larger than any plan should be.
    #[error("{} is larger than {} MiB, the most that is read", path.display(), MAX_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not UTF-8.
    #[error("{} is not UTF-8: byte 0x{byte:02x} at offset {offset} (line {line}){}", path.display(), utf16(*hint))]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that does not belong.
        byte: u8,
        /// Where it stands, from 0.
        offset: usize,
        /// Its line, from 1.
        line: usize,
        /// Whether the file starts like UTF-16.
        hint: bool,
    },
}

fn utf16(hint: bool) -> &'static str {
    if hint { "; it looks like UTF-16: save it as UTF-8" } else { "; save the file as UTF-8" }
}

/// Reads a file whole, if it is not too large. A pipe is read too, so that `<(…)` of a shell works, and no further than the limit.
pub fn read_file(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(ReadError::Directory { path: path.to_owned() });
    }
    if metadata.len() > MAX_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    decode(path, bytes)
}

/// Bytes as text, if they are UTF-8 and not too many. `path` is for the message.
pub fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, ReadError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|wrong| {
        let offset = wrong.utf8_error().valid_up_to();
        let bytes = wrong.as_bytes();
        ReadError::NotUtf8 {
            path: path.to_owned(),
            byte: bytes[offset],
            offset,
            line: bytes[..offset].split(|byte| *byte == b'\n').count(),
            hint: bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]),
        }
    })
}
