//! What a bare scalar means: YAML 1.2's core schema (section 10.3.2), and nothing of 1.1.

use super::StoredKind;

/// Why a bare scalar is refused.
pub(super) enum Refused {
    /// `0755`: ten readers out of ten think of octal, YAML 1.2 does not.
    LeadingZero,
    /// A whole number that 64 bits do not hold.
    TooLarge,
    /// `.nan`, `.inf` and floats too large to be finite have no place in a plan.
    NotFinite,
}

/// The meaning of a bare scalar; `None` says that it is a string.
pub(super) fn resolve<'s>(text: &str) -> Result<Option<StoredKind<'s>>, Refused> {
    let kind = match text {
        "" | "~" | "null" | "Null" | "NULL" => StoredKind::Null,
        "true" | "True" | "TRUE" => StoredKind::Bool(true),
        "false" | "False" | "FALSE" => StoredKind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Err(Refused::NotFinite),
        _ => return number(text),
    };
    Ok(Some(kind))
}

fn number<'s>(text: &str) -> Result<Option<StoredKind<'s>>, Refused> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(None);
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Err(Refused::NotFinite);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return radix(hex, 16);
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(Refused::LeadingZero);
        }
        return text.parse().map(|value| Some(StoredKind::Int(value))).map_err(|_| Refused::TooLarge);
    }
    if !is_float(digits) {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(StoredKind::Float(value))),
        Ok(_) => Err(Refused::NotFinite),
        Err(_) => Ok(None),
    }
}

fn radix<'s>(digits: &str, radix: u32) -> Result<Option<StoredKind<'s>>, Refused> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Ok(None);
    }
    i64::from_str_radix(digits, radix).map(|value| Some(StoredKind::Int(value))).map_err(|_| Refused::TooLarge)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (digits, None),
    };
    let all = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all(fraction),
        Some((whole, fraction)) => all(whole) && all(fraction),
        None => !mantissa.is_empty() && all(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|exponent| !exponent.is_empty() && all(exponent))
}
