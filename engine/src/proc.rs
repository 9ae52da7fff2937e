//! Texts of procfs and cgroupfs. Whoever names a process, a mount, an interface or a cgroup chooses bytes, and none of them may make the text
//! unreadable.

use std::io;
use std::path::Path;

/// The whole text of a file; what is not UTF-8 in it is replaced by U+FFFD.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    std::fs::read(path).map(lossy)
}

/// The same of bytes that were read already.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_byte_that_is_not_utf_8_costs_itself_alone() {
        assert_eq!(super::lossy(b"1 (\xff) S\n".to_vec()), "1 (\u{fffd}) S\n");
        assert_eq!(super::lossy(b"plain".to_vec()), "plain");
    }
}
