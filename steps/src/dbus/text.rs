//! Values as people write them: GVariant's text format (docs.gtk.org/glib/gvariant-text.html), in which runtimes take systemd properties from
//! annotations.

use std::fmt::Write as _;

use super::value::{DEEPEST, Value, is_type};

/// Reads a value.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let node = parser.node(DEEPEST)?;
    parser.blanks();
    if !parser.rest.is_empty() {
        return Err(format!("`{}` follows the value", parser.rest));
    }
    let signature = node.explicit().unwrap_or_else(|| node.default());
    node.build(&signature)
}

/// Writes a value, so that [`parse`] reads the same.
pub fn print(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::Byte(n) => format!("byte {n:#04x}"),
        Value::I16(n) => format!("int16 {n}"),
        Value::U16(n) => format!("uint16 {n}"),
        Value::I32(n) => n.to_string(),
        Value::U32(n) => format!("uint32 {n}"),
        Value::I64(n) => format!("int64 {n}"),
        Value::U64(n) => format!("uint64 {n}"),
        Value::Double(n) => format!("double {n}"),
        Value::Str(text) => quoted(text),
        Value::Path(text) => format!("objectpath {}", quoted(text)),
        Value::Signature(text) => format!("signature {}", quoted(text)),
        Value::Variant(inner) => format!("<{}>", print(inner)),
        Value::Entry(key, value) => format!("{}: {}", print(key), print(value)),
        Value::Struct(items) => match &items[..] {
            [one] => format!("({},)", print(one)),
            items => format!("({})", joined(items)),
        },
        Value::Array(of, items) if items.is_empty() => {
            format!("@a{of} {}", if of.starts_with('{') { "{}" } else { "[]" })
        }
        Value::Array(of, items) if of.starts_with('{') => format!("{{{}}}", joined(items)),
        Value::Array(_, items) => format!("[{}]", joined(items)),
    }
}

fn joined(items: &[Value]) -> String {
    items.iter().map(print).collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "'"
}

/// A value as it is written: its type may come from the values beside it.
#[derive(Debug)]
enum Node {
    Word(bool),
    Number(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Tuple(Vec<Node>),
    Variant(Box<Value>),
    Typed(String, Box<Node>),
}

const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl Node {
    /// The type that the text names, where it does.
    fn explicit(&self) -> Option<String> {
        match self {
            Self::Typed(signature, _) => Some(signature.clone()),
            Self::Word(_) => Some("b".into()),
            Self::Bytes(_) => Some("ay".into()),
            Self::Variant(_) => Some("v".into()),
            Self::Number(_) | Self::Text(_) => None,
            Self::List(items) => items.iter().find_map(Self::explicit).map(|of| format!("a{of}")),
            Self::Map(_) | Self::Tuple(_) => Some(self.default()),
        }
    }

    /// The type that the value has if nothing else says so.
    fn default(&self) -> String {
        let of = |node: &Self| node.explicit().unwrap_or_else(|| node.default());
        match self {
            Self::Number(text) if text.contains(['.', 'e', 'E']) && !text.starts_with("0x") => "d".into(),
            Self::Number(_) => "i".into(),
            Self::Text(_) => "s".into(),
            Self::List(items) => format!("a{}", items.first().map_or_else(String::new, of)),
            Self::Map(items) => match items.first() {
                Some((key, value)) => format!("a{{{}{}}}", of(key), of(value)),
                None => "a".into(),
            },
            Self::Tuple(items) => format!("({})", items.iter().map(of).collect::<String>()),
            Self::Word(_) | Self::Bytes(_) | Self::Variant(_) | Self::Typed(..) => self.explicit().unwrap_or_default(),
        }
    }

    fn build(&self, signature: &str) -> Result<Value, String> {
        let wrong = || format!("{} is no value of the type `{signature}`", self.shown());
        if !is_type(signature) {
            return Err(match self {
                Self::List(_) | Self::Map(_) => "an empty list needs its type before it, such as `@as []`".to_owned(),
                _ => format!("`{signature}` is no type"),
            });
        }
        if let ("v", false) = (signature, matches!(self, Self::Variant(_))) {
            return Err(wrong());
        }
        match self {
            Self::Typed(own, node) if own == signature => node.build(signature),
            Self::Word(on) if signature == "b" => Ok(Value::Bool(*on)),
            Self::Number(text) => number(text, signature).ok_or_else(wrong),
            Self::Text(text) => match signature {
                "s" => Ok(Value::Str(text.clone())),
                "o" => Ok(Value::Path(text.clone())),
                "g" => Ok(Value::Signature(text.clone())),
                _ => Err(wrong()),
            },
            Self::Bytes(bytes) if signature == "ay" => {
                Ok(Value::Array("y".into(), bytes.iter().map(|byte| Value::Byte(*byte)).collect()))
            }
            Self::Variant(value) if signature == "v" => Ok(Value::Variant(value.clone())),
            Self::List(items) => {
                let of = signature.strip_prefix('a').filter(|of| !of.starts_with('{')).ok_or_else(wrong)?;
                Ok(Value::Array(of.to_owned(), items.iter().map(|item| item.build(of)).collect::<Result<_, _>>()?))
            }
            Self::Map(items) => {
                let of = signature.strip_prefix('a').filter(|of| of.starts_with('{')).ok_or_else(wrong)?;
                let (key_type, value_type) = of[1..of.len() - 1].split_at(1);
                let entry = |(key, value): &(Self, Self)| {
                    Ok::<_, String>(Value::Entry(Box::new(key.build(key_type)?), Box::new(value.build(value_type)?)))
                };
                Ok(Value::Array(of.to_owned(), items.iter().map(entry).collect::<Result<_, _>>()?))
            }
            Self::Tuple(items) => {
                let mut rest = signature.strip_prefix('(').and_then(|s| s.strip_suffix(')')).ok_or_else(wrong)?;
                let mut built = Vec::new();
                for item in items {
                    let (one, more) = super::value::first_type(rest).ok_or_else(wrong)?;
                    built.push(item.build(one)?);
                    rest = more;
                }
                if rest.is_empty() { Ok(Value::Struct(built)) } else { Err(wrong()) }
            }
            Self::Typed(..) | Self::Word(_) | Self::Bytes(_) | Self::Variant(_) => Err(wrong()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Word(on) => on.to_string(),
            Self::Number(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::Typed(signature, node) => format!("@{signature} {}", node.shown()),
            Self::Bytes(_) => "a byte string".into(),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a dictionary".into(),
            Self::Tuple(_) => "a tuple".into(),
            Self::Variant(_) => "a variant".into(),
        }
    }
}

fn number(text: &str, signature: &str) -> Option<Value> {
    if signature == "d" {
        // One that is too large has no text that would be read again.
        return text.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Double);
    }
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let whole = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8).ok()?,
        None => digits.parse().ok()?,
    };
    let n = if negative { -whole } else { whole };
    Some(match signature {
        "y" => Value::Byte(n.try_into().ok()?),
        "n" => Value::I16(n.try_into().ok()?),
        "q" => Value::U16(n.try_into().ok()?),
        "i" => Value::I32(n.try_into().ok()?),
        "u" => Value::U32(n.try_into().ok()?),
        "x" => Value::I64(n.try_into().ok()?),
        "t" => Value::U64(n.try_into().ok()?),
        _ => return None,
    })
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("`{token}` is missing before `{}`", self.rest)) }
    }

    /// The longest start of the rest that has such characters only.
    fn word(&mut self, is_part: impl Fn(char) -> bool) -> String {
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        word.to_owned()
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deep")?;
        self.blanks();
        match self.rest.chars().next() {
            None => Err("there is no value".into()),
            Some('@') => {
                self.rest = &self.rest[1..];
                let signature = self.word(|c| !c.is_whitespace());
                if !is_type(&signature) {
                    return Err(format!("`{signature}` is no type"));
                }
                Ok(Node::Typed(signature, Box::new(self.node(depth)?)))
            }
            Some(quote @ ('\'' | '"')) => self.text(quote).map(Node::Text),
            Some('b') if self.rest[1..].starts_with(['\'', '"']) => self.bytes(),
            Some('[') => Ok(Node::List(self.items("[", "]", depth)?)),
            Some('(') => Ok(Node::Tuple(self.items("(", ")", depth)?)),
            Some('{') => self.map(depth),
            Some('<') => {
                self.expect("<")?;
                let node = self.node(depth)?;
                self.expect(">")?;
                let signature = node.explicit().unwrap_or_else(|| node.default());
                Ok(Node::Variant(Box::new(node.build(&signature)?)))
            }
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => {
                Ok(Node::Number(self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))))
            }
            Some(_) => self.keyword(depth),
        }
    }

    fn keyword(&mut self, depth: usize) -> Result<Node, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric());
        match word.as_str() {
            "true" => return Ok(Node::Word(true)),
            "false" => return Ok(Node::Word(false)),
            _ => {}
        }
        match TYPES.iter().find(|(name, _)| *name == word) {
            Some((_, signature)) => Ok(Node::Typed((*signature).to_owned(), Box::new(self.node(depth)?))),
            None => Err(format!("`{word}{}` is no value; text stands in quotes: `'…'`", self.rest)),
        }
    }

    fn items(&mut self, open: &str, close: &str, depth: usize) -> Result<Vec<Node>, String> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.node(depth)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        self.expect("{")?;
        let mut items = Vec::new();
        while !self.eat("}") {
            let key = self.node(depth)?;
            self.expect(":")?;
            items.push((key, self.node(depth)?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Node::Map(items))
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        let mut chars = self.rest.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('a') => text.push('\u{7}'),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('v') => text.push('\u{b}'),
                    Some(u @ ('u' | 'U')) => {
                        let digits: String =
                            chars.by_ref().take(if u == 'u' { 4 } else { 8 }).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(code.ok_or_else(|| format!("`\\{u}{digits}` is no character"))?);
                    }
                    Some(c) => text.push(c),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("the quotes are not closed".into())
    }

    /// A byte string, which ends with a zero byte that is not written.
    fn bytes(&mut self) -> Result<Node, String> {
        self.rest = &self.rest[1..];
        let quote = self.rest.chars().next().unwrap_or('\'');
        let mut bytes = self.text(quote)?.into_bytes();
        bytes.push(0);
        Ok(Node::Bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_the_type_that_is_named_or_usual() {
        let cases = [
            ("uint64 123456789", Value::U64(123_456_789)),
            ("'inactive-or-failed'", Value::str("inactive-or-failed")),
            ("\"it's\"", Value::str("it's")),
            ("true", Value::Bool(true)),
            ("-5", Value::I32(-5)),
            ("byte 0xff", Value::Byte(255)),
            ("1.5", Value::Double(1.5)),
            ("@t 7", Value::U64(7)),
            ("b'ab'", Value::Array("y".into(), vec![Value::Byte(b'a'), Value::Byte(b'b'), Value::Byte(0)])),
            (
                "['a.service', 'b.service']",
                Value::Array("s".into(), vec![Value::str("a.service"), Value::str("b.service")]),
            ),
            ("[uint64 1, 2]", Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)])),
            ("@a(ss) []", Value::Array("(ss)".into(), Vec::new())),
            ("('a', uint32 3)", Value::Struct(vec![Value::str("a"), Value::U32(3)])),
            ("<'x'>", Value::str("x").variant()),
            ("@as ['x']", Value::Array("s".into(), vec![Value::str("x")])),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text), Ok(value.clone()), "{text}");
            assert_eq!(parse(&print(&value)), Ok(value), "{text}");
        }
        let map = parse("{'a': <1>}").expect("a dictionary");
        assert_eq!((map.signature().as_str(), print(&map).as_str()), ("a{sv}", "{'a': <1>}"));
    }

    #[test]
    fn what_is_no_value_is_refused_with_the_reason() {
        let cases = [
            ("yes", "`yes` is no value; text stands in quotes: `'…'`"),
            ("", "there is no value"),
            ("uint32 -1", "-1 is no value of the type `u`"),
            ("'open", "the quotes are not closed"),
            ("[]", "an empty list needs its type before it, such as `@as []`"),
            ("1 2", "`2` follows the value"),
            ("[1, 'a']", "'a' is no value of the type `i`"),
            ("@q 'x'", "'x' is no value of the type `q`"),
            ("@zz 1", "`zz` is no type"),
        ];
        for (text, reason) in cases {
            assert_eq!(parse(text), Err(reason.to_owned()), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"byte ".repeat(100_000)).is_err());
    }
}
