//! Where a field is written.

/// The line and column, counted from 1, of the value at a path such as `mounts[2].destination`; of what is around it where it is not there itself.
/// None for a text that is not JSON.
pub(super) fn locate(text: &str, path: &str) -> Option<(usize, usize)> {
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    let at = scan.find(path)?;
    let before = text.get(..at)?;
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((line, column))
}

/// Deeper than any configuration, and shallow enough for the stack.
const DEEPEST: u32 = 128;

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn find(&mut self, path: &str) -> Option<usize> {
        let mut path = path;
        for _ in 0..DEEPEST {
            let here = self.begin()?;
            if path.is_empty() {
                return Some(here);
            }
            let inner = match self.text.get(here)? {
                b'{' => self.member(path.strip_prefix('.').unwrap_or(path))?,
                b'[' => self.element(path)?,
                _ => None,
            };
            let Some((start, rest)) = inner else { return Some(here) };
            self.at = start;
            path = rest;
        }
        None
    }

    /// The member that the path goes on with, and the rest of the path: the longest name of those that fit, since a name may hold dots.
    #[expect(clippy::option_option, reason = "no JSON, and no such member, are different answers")]
    fn member<'p>(&mut self, path: &'p str) -> Option<Option<(usize, &'p str)>> {
        let mut best: Option<(usize, &str)> = None;
        self.at += 1;
        while self.peek()? != b'}' {
            let name: String = {
                let from = self.begin()?;
                self.skip()?;
                serde_json::from_slice(&self.text[from..self.at]).ok()?
            };
            (self.peek()? == b':').then_some(())?;
            self.at += 1;
            let start = self.begin()?;
            if let Some(rest) = path.strip_prefix(name.as_str())
                && (rest.is_empty() || rest.starts_with(['.', '[']))
                && best.is_none_or(|(_, shortest)| rest.len() < shortest.len())
            {
                best = Some((start, rest));
            }
            self.skip()?;
            self.comma()?;
        }
        Some(best)
    }

    #[expect(clippy::option_option, reason = "no JSON, and no such element, are different answers")]
    fn element<'p>(&mut self, path: &'p str) -> Option<Option<(usize, &'p str)>> {
        let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) else {
            return Some(None);
        };
        let Ok(index) = index.parse::<usize>() else { return Some(None) };
        self.at += 1;
        let mut count = 0;
        while self.peek()? != b']' {
            let start = self.begin()?;
            if count == index {
                return Some(Some((start, rest)));
            }
            self.skip()?;
            self.comma()?;
            count += 1;
        }
        Some(None)
    }

    /// Past white space; where the next value or sign is.
    fn begin(&mut self) -> Option<usize> {
        self.peek()?;
        Some(self.at)
    }

    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn comma(&mut self) -> Option<()> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        Some(())
    }

    /// Past a whole value.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    while self.text.get(self.at).is_some_and(|byte| !b",]}: \n\r\t".contains(byte)) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "process": { "cwd": "a \" ] }", "args": [
    "sh", { "x": [1, 2,
 3] }
  ] },
  "linux": { "sysctl": { "net": 1, "net.ipv4": 2, "ü": 3, "ö": 4 } }
}"#;

    #[test]
    fn a_value_is_found_by_its_path() {
        let places = [
            ("", (1, 1)),
            ("process", (2, 14)),
            ("process.cwd", (2, 23)),
            ("process.args[0]", (3, 5)),
            ("process.args[1].x[2]", (4, 2)),
            ("linux.sysctl.net", (6, 33)),
            ("linux.sysctl.net.ipv4", (6, 48)),
            ("linux.sysctl.ö", (6, 64)),
        ];
        for (path, place) in places {
            assert_eq!(locate(TEXT, path), Some(place), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_where_it_would_be() {
        assert_eq!(locate(TEXT, "process.user.uid"), locate(TEXT, "process"));
        assert_eq!(locate(TEXT, "process.args[7]"), locate(TEXT, "process.args"));
        assert_eq!(locate(TEXT, "hostname"), Some((1, 1)));
        assert_eq!(locate("", "x"), None);
        assert_eq!(locate("{\"a", "x"), None);
        assert_eq!(locate("{\"a\":", "a"), None);
    }
}
