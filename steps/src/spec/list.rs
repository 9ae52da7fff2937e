//! Lists of numbers as cpuset(7) writes them, "List Format": `0-3,7`.

/// One more than the largest CPU or node that any kernel knows: CONFIG_NR_CPUS goes to 8192.
const MOST: u32 = 8192;

/// Reads a list strictly: numbers and ranges, separated by commas, nothing else. The answer has bit n set for number n, and as many words as
/// the largest number needs.
pub fn number_list(text: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("`{text}` is not a list such as `0-3,7`"));
        };
        if first > last {
            return Err(format!("`{part}` runs backwards"));
        }
        if last >= MOST {
            return Err(format!("{last} is more than any kernel has; the largest number is {}", MOST - 1));
        }
        mask.resize(mask.len().max(last as usize / 64 + 1), 0);
        for n in first..=last {
            mask[n as usize / 64] |= 1u64 << (n % 64);
        }
    }
    Ok(mask)
}

/// Digits alone: `+1` and ` 1` are no numbers here.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(number_list("0"), Ok(vec![1]));
        assert_eq!(number_list("0-3,7"), Ok(vec![0b1000_1111]));
        assert_eq!(number_list("7,0-3,2"), Ok(vec![0b1000_1111]));
        assert_eq!(number_list("63-64"), Ok(vec![1 << 63, 1]));
        assert_eq!(number_list("8191").map(|mask| mask.len()), Ok(128));
    }

    #[test]
    fn whatever_is_no_list_is_refused() {
        for text in ["", ",", "0,", "a", "1-", "-1", "3-1", "0 ,1", "+1", "1--2", "0-3:1/2", "99999999999", "0-8192"] {
            assert!(number_list(text).is_err(), "{text:?}");
        }
    }
}
