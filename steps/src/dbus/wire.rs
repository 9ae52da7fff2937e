//! Messages as bytes: D-Bus Specification, "Message Protocol". Little-endian when written; both byte orders when read.

use super::value::{DEEPEST, Value, first_type};

/// The largest message that is taken. The specification allows 128 MiB; systemd's longest answers are far below this.
const LARGEST: usize = 4 << 20;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call of a method.
    Call = 1,
    /// The answer to a call.
    Return = 2,
    /// The refusal of a call.
    Error = 3,
    /// Something happened.
    Signal = 4,
}

/// A message. Fields that are absent are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number, which its answer names.
    pub serial: u32,
    /// The number of the call that it answers.
    pub reply_to: u32,
    /// The object.
    pub path: String,
    /// The interface.
    pub interface: String,
    /// The method or signal.
    pub member: String,
    /// The error's name.
    pub error: String,
    /// Who is to get it.
    pub destination: String,
    /// What it carries.
    pub body: Vec<Value>,
}

impl Message {
    /// A call.
    pub fn call(destination: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Self {
        Self {
            kind: Kind::Call,
            serial: 0,
            reply_to: 0,
            path: path.into(),
            interface: interface.into(),
            member: member.into(),
            error: String::new(),
            destination: destination.into(),
            body,
        }
    }

    /// The answer to this call.
    pub fn answer(&self, kind: Kind, error: &str, body: Vec<Value>) -> Self {
        let error = error.into();
        Self { kind, reply_to: self.serial, error, ..Self::call("", "", "", "", body) }
    }

    /// The message as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        for value in &self.body {
            body.put(value);
        }
        let signature: String = self.body.iter().map(Value::signature).collect();
        let text = |code, value: &String| (!value.is_empty()).then(|| (code, Value::str(value)));
        let fields = [
            (!self.path.is_empty()).then(|| (1, Value::Path(self.path.clone()))),
            text(2, &self.interface),
            text(3, &self.member),
            text(4, &self.error),
            (self.reply_to != 0).then_some((5, Value::U32(self.reply_to))),
            text(6, &self.destination),
            (!signature.is_empty()).then_some((8, Value::Signature(signature))),
        ];
        let fields = fields.into_iter().flatten();
        let fields = fields.map(|(code, value)| Value::Struct(vec![Value::Byte(code), value.variant()])).collect();
        let mut out = Writer(vec![b'l', self.kind as u8, 0, 1]);
        out.put(&Value::U32(body.0.len() as u32));
        out.put(&Value::U32(self.serial));
        out.put(&Value::Array("(yv)".into(), fields));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// How long the message is that begins with these bytes. `Ok(None)`: more are needed to tell.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        if bytes.len() < 16 {
            return Ok(None);
        }
        let mut reader = Reader::of(bytes)?;
        reader.at = 4;
        let body = reader.u32()? as usize;
        reader.at = 12;
        let fields = reader.u32()? as usize;
        if body > LARGEST || fields > LARGEST {
            return Err("a message is too long");
        }
        Ok(Some((16 + fields).next_multiple_of(8) + body))
    }

    /// Reads one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::of(bytes)?;
        reader.at = 1;
        let kind = match reader.take(1)?[0] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err("a message of an unknown type"),
        };
        let mut message = Self { kind, ..Self::call("", "", "", "", Vec::new()) };
        reader.at = 8;
        message.serial = reader.u32()?;
        let Value::Array(_, fields) = reader.get("a(yv)", DEEPEST)? else { return Err("a message without a header") };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = &pair[..] else { continue };
            match (code, &**value) {
                (1, Value::Path(text)) => message.path.clone_from(text),
                (2, Value::Str(text)) => message.interface.clone_from(text),
                (3, Value::Str(text)) => message.member.clone_from(text),
                (4, Value::Str(text)) => message.error.clone_from(text),
                (5, Value::U32(serial)) => message.reply_to = *serial,
                (6, Value::Str(text)) => message.destination.clone_from(text),
                (8, Value::Signature(text)) => signature.clone_from(text),
                _ => {}
            }
        }
        reader.align(8)?;
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            let (one, more) = first_type(rest).ok_or("a message with a malformed signature")?;
            message.body.push(reader.get(one, DEEPEST)?);
            rest = more;
        }
        Ok(message)
    }
}

/// The alignment of a type.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn plain<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.plain((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn put(&mut self, value: &Value) {
        match value {
            Value::Bool(on) => self.plain(u32::from(*on).to_le_bytes()),
            Value::Byte(n) => self.0.push(*n),
            Value::I16(n) => self.plain(n.to_le_bytes()),
            Value::U16(n) => self.plain(n.to_le_bytes()),
            Value::I32(n) => self.plain(n.to_le_bytes()),
            Value::U32(n) => self.plain(n.to_le_bytes()),
            Value::I64(n) => self.plain(n.to_le_bytes()),
            Value::U64(n) => self.plain(n.to_le_bytes()),
            Value::Double(n) => self.plain(n.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.put(inner);
            }
            Value::Struct(items) => {
                self.align(8);
                for item in items {
                    self.put(item);
                }
            }
            Value::Entry(key, value) => {
                self.align(8);
                self.put(key);
                self.put(value);
            }
            Value::Array(of, items) => {
                self.plain([0; 4]);
                let length_at = self.0.len() - 4;
                // The padding before the first item does not count, and is there without any item too.
                self.align(alignment(of));
                let start = self.0.len();
                for item in items {
                    self.put(item);
                }
                let length = (self.0.len() - start) as u32;
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, &'static str> {
        match bytes.first() {
            Some(b'l') => Ok(Self { bytes, at: 0, big: false }),
            Some(b'B') => Ok(Self { bytes, at: 0, big: true }),
            _ => Err("a message of an unknown byte order"),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(count).ok_or("a message with a wrong length")?;
        let taken = self.bytes.get(self.at..end).ok_or("a message that ends too early")?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), &'static str> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    /// The next number, little-endian.
    fn plain<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.plain().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, &'static str> {
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| "a message with text that is not UTF-8")
    }

    fn get(&mut self, signature: &str, depth: usize) -> Result<Value, &'static str> {
        let depth = depth.checked_sub(1).ok_or("a message that is nested too deep")?;
        Ok(match signature.as_bytes().first() {
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'y') => Value::Byte(self.take(1)?[0]),
            Some(b'n') => Value::I16(self.plain().map(i16::from_le_bytes)?),
            Some(b'q') => Value::U16(self.plain().map(u16::from_le_bytes)?),
            Some(b'i') => Value::I32(self.plain().map(i32::from_le_bytes)?),
            // A descriptor's index (`h`) is a number to whoever takes none.
            Some(b'u' | b'h') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(self.plain().map(i64::from_le_bytes)?),
            Some(b't') => Value::U64(self.plain().map(u64::from_le_bytes)?),
            Some(b'd') => Value::Double(self.plain().map(f64::from_le_bytes)?),
            Some(b's') => self.u32().and_then(|n| self.text(n as usize)).map(Value::Str)?,
            Some(b'o') => self.u32().and_then(|n| self.text(n as usize)).map(Value::Path)?,
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let of = self.signature()?;
                let (one, _) = first_type(&of).ok_or("a message with a malformed variant")?;
                self.get(one, depth)?.variant()
            }
            Some(b'a') => self.array(&signature[1..], depth)?,
            Some(b'(') => {
                self.align(8)?;
                Value::Struct(self.items(&signature[1..signature.len() - 1], depth)?)
            }
            Some(b'{') => {
                self.align(8)?;
                let mut items = self.items(&signature[1..signature.len() - 1], depth)?.into_iter();
                let (Some(key), Some(value)) = (items.next(), items.next()) else { return Err("half an entry") };
                Value::Entry(Box::new(key), Box::new(value))
            }
            _ => return Err("a message with a value of an unknown type"),
        })
    }

    fn signature(&mut self) -> Result<String, &'static str> {
        let length = self.take(1)?[0];
        self.text(length as usize)
    }

    fn items(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, &'static str> {
        let mut items = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = first_type(signature).ok_or("a message with a malformed signature")?;
            items.push(self.get(one, depth)?);
            signature = rest;
        }
        Ok(items)
    }

    fn array(&mut self, of: &str, depth: usize) -> Result<Value, &'static str> {
        let length = self.u32()? as usize;
        self.align(alignment(of))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("a message with an array that is too long")?;
        let mut items = Vec::new();
        while self.at < end {
            items.push(self.get(of, depth)?);
        }
        if self.at == end { Ok(Value::Array(of.to_owned(), items)) } else { Err("an array with a wrong length") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> Vec<Value> {
        let entry = Value::Entry(Box::new(Value::str("k")), Box::new(Value::Bool(true).variant()));
        vec![
            Value::Byte(7),
            Value::U64(1 << 40),
            Value::str("däta"),
            Value::Array("(st)".into(), vec![Value::Struct(vec![Value::str("/dev"), Value::U64(9)])]),
            Value::Array("t".into(), Vec::new()),
            Value::Array("{sv}".into(), vec![entry]),
            Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            Value::I16(-2),
            Value::Double(0.5),
            Value::Path("/a/b".into()),
            Value::Signature("a{sv}".into()),
        ]
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let mut call = Message::call("org.example", "/a", "org.example.I", "M", every_type());
        call.serial = 3;
        let bytes = call.encode();
        assert_eq!(Message::length(&bytes[..16]), Ok(Some(bytes.len())));
        assert_eq!(Message::decode(&bytes), Ok(call));
    }

    /// As the specification's layout demands, byte for byte.
    #[test]
    fn a_small_call_has_the_bytes_of_the_specification() {
        let mut call = Message::call("", "/", "", "M", vec![Value::U32(5)]);
        call.serial = 1;
        let fields = *b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\x08\x01g\0\x01u\0";
        let head = *b"l\x01\0\x01\x04\0\0\0\x01\0\0\0\x27\0\0\0";
        let bytes = [&head[..], &fields, &[0], &[5, 0, 0, 0]].concat();
        assert_eq!(call.encode(), bytes);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_an_error_or_a_message_but_never_a_panic() {
        let mut call = Message::call("org.example", "/a", "org.example.I", "M", every_type());
        call.serial = 3;
        let bytes = call.encode();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff, b'(', b'a', b'v'] {
                let mut broken = bytes.clone();
                broken[at] = value;
                let (_length, _message) = (Message::length(&broken), Message::decode(&broken));
            }
        }
    }

    #[test]
    fn a_message_of_the_other_byte_order_is_read() {
        let bytes = *b"B\x02\0\x01\0\0\0\x04\0\0\0\x09\0\0\0\x0f\x05\x01u\0\0\0\0\x03\x08\x01g\0\x01u\0\0\0\0\0\x2a";
        let message = Message::decode(&bytes).expect("a message");
        assert_eq!((message.serial, message.reply_to, message.body), (9, 3, vec![Value::U32(42)]));
    }
}
