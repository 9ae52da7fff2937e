//! The conditions of `if`, by recursive descent with a bounded depth.
//!
//! `||` binds weakest, then `&&`, then `==` and `!=` (which do not chain), then `!`.

use super::{Condition, ConditionKind, Cursor, MAX_DEPTH, SyntaxError, in_identifier, reference, template};

pub(super) fn parse(text: &str) -> Result<Condition, SyntaxError> {
    let mut reader = Reader { cursor: Cursor::new(text, 0), depth: 0 };
    let condition = reader.or()?;
    reader.cursor.spaces();
    match reader.cursor.peek() {
        None => Ok(condition),
        Some('=') => Err(reader.cursor.error_here("a single `=` compares nothing", Some("write `==`"))),
        Some('&') => Err(reader.cursor.error_here("a single `&` means nothing", Some("write `&&`"))),
        Some('|') => Err(reader.cursor.error_here("a single `|` means nothing", Some("write `||`"))),
        Some('<' | '>') => Err(reader.cursor.error_here("there is no order here, only `==` and `!=`", None)),
        Some(c) => Err(reader
            .cursor
            .error_here(format!("the condition is complete before `{c}`"), Some("join conditions with `&&` or `||`"))),
    }
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    depth: usize,
}

type Join = fn(Box<Condition>, Box<Condition>) -> ConditionKind;

impl Reader<'_> {
    fn or(&mut self) -> Result<Condition, SyntaxError> {
        self.chain("||", ConditionKind::Or, Self::and)
    }

    fn and(&mut self) -> Result<Condition, SyntaxError> {
        self.chain("&&", ConditionKind::And, Self::comparison)
    }

    /// `next (token next)*`, grouped from the left. The length is bounded so that the tree is too.
    fn chain(
        &mut self,
        token: &str,
        join: Join,
        next: fn(&mut Self) -> Result<Condition, SyntaxError>,
    ) -> Result<Condition, SyntaxError> {
        let mut left = next(self)?;
        for _ in 0..MAX_DEPTH {
            self.cursor.spaces();
            if !self.cursor.eat(token) {
                return Ok(left);
            }
            let right = next(self)?;
            let span = left.span.to(right.span);
            left = Condition { kind: join(Box::new(left), Box::new(right)), span };
        }
        Err(self.cursor.error_here(format!("more than {MAX_DEPTH} conditions joined by `{token}`"), None))
    }

    fn comparison(&mut self) -> Result<Condition, SyntaxError> {
        let left = self.unary()?;
        let Some(join) = self.comparator() else { return Ok(left) };
        let right = self.unary()?;
        let span = left.span.to(right.span);
        let before = self.cursor.at;
        if self.comparator().is_some() {
            let end = self.cursor.at;
            self.cursor.at = before;
            self.cursor.spaces();
            let span = crate::diag::Span::new(self.cursor.at, end);
            let help = Some("use parentheses, or join two comparisons with `&&`".to_owned());
            return Err(SyntaxError { span, message: "comparisons do not chain".to_owned(), help });
        }
        Ok(Condition { kind: join(Box::new(left), Box::new(right)), span })
    }

    fn comparator(&mut self) -> Option<Join> {
        self.cursor.spaces();
        if self.cursor.eat("==") {
            Some(ConditionKind::Equal)
        } else if self.cursor.eat("!=") {
            Some(ConditionKind::NotEqual)
        } else {
            None
        }
    }

    fn unary(&mut self) -> Result<Condition, SyntaxError> {
        self.cursor.spaces();
        if self.depth == MAX_DEPTH {
            return Err(self.cursor.error_here(format!("nested deeper than {MAX_DEPTH} levels"), None));
        }
        self.depth += 1;
        let start = self.cursor.at;
        let condition = if self.cursor.eat("!") {
            let inner = self.unary()?;
            Condition { span: self.cursor.since(start), kind: ConditionKind::Not(Box::new(inner)) }
        } else if self.cursor.eat("(") {
            let inner = self.or()?;
            self.cursor.spaces();
            if !self.cursor.eat(")") {
                return Err(self.cursor.error_here("expected `)`", None));
            }
            Condition { span: self.cursor.since(start), kind: inner.kind }
        } else {
            self.atom()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn atom(&mut self) -> Result<Condition, SyntaxError> {
        let start = self.cursor.at;
        let kind = match self.cursor.peek() {
            Some('"' | '\'') => ConditionKind::Str(reference::quoted(&mut self.cursor)?),
            Some('$') if self.cursor.rest().starts_with("${") => {
                ConditionKind::Reference(template::braced(&mut self.cursor)?)
            }
            Some(c) if c.is_ascii_digit() || c == '-' => self.int()?,
            Some(c) if in_identifier(c) => self.word()?,
            Some(c) => {
                return Err(self.cursor.error_here(
                    format!("expected a value, found `{c}`"),
                    Some("a value is a reference, a number, true, false, null, or a text in quotes"),
                ));
            }
            None => return Err(self.cursor.error_here("expected a value, found the end", None)),
        };
        Ok(Condition { kind, span: self.cursor.since(start) })
    }

    fn word(&mut self) -> Result<ConditionKind, SyntaxError> {
        let reference = reference::read(&mut self.cursor)?;
        Ok(match &*reference.root {
            _ if !reference.path.is_empty() => ConditionKind::Reference(reference),
            "null" => ConditionKind::Null,
            "true" => ConditionKind::Bool(true),
            "false" => ConditionKind::Bool(false),
            _ => ConditionKind::Reference(reference),
        })
    }

    fn int(&mut self) -> Result<ConditionKind, SyntaxError> {
        let start = self.cursor.at;
        self.cursor.eat("-");
        self.cursor.take(|c| in_identifier(c) || c == '.');
        let span = self.cursor.since(start);
        let text = &self.cursor.text[span.range()];
        text.parse().map(ConditionKind::Int).map_err(|_| SyntaxError {
            span,
            message: format!("`{text}` is not a whole number of 64 bits"),
            help: Some(format!("if it is text, put it in quotes: '{text}'")),
        })
    }
}
