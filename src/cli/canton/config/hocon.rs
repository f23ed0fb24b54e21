//! A HOCON document as a tree, written over several lines with comments, or on one line without.

use std::fmt::Write as _;

use super::values::quoted;

/// A value.
pub(super) enum Value {
    /// A word that needs no quotes.
    Word(&'static str),
    /// A text, written in quotes.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// An object.
    Section(Vec<Field>),
}

/// A field of an object. The key needs no quotes.
pub(super) struct Field {
    /// Why it is there: one comment line each.
    pub(super) why: &'static [&'static str],
    /// The key.
    pub(super) key: &'static str,
    /// The value.
    pub(super) value: Value,
}

impl Field {
    /// A field that needs no explanation.
    pub(super) const fn new(key: &'static str, value: Value) -> Self {
        Self { why: &[], key, value }
    }

    /// A field, and why it is there.
    pub(super) const fn because(why: &'static [&'static str], key: &'static str, value: Value) -> Self {
        Self { why, key, value }
    }
}

/// `path { … }` over several lines, with comments.
pub(super) fn document(path: &str, fields: &[Field]) -> String {
    let mut out = format!("{path} {{\n");
    lines(&mut out, fields, 1);
    out.push_str("}\n");
    out
}

/// `path { … }` on one line, without comments.
pub(super) fn line(path: &str, fields: &[Field]) -> String {
    format!("{path} {}", object(fields))
}

fn lines(out: &mut String, fields: &[Field], depth: usize) {
    let indent = "  ".repeat(depth);
    for field in fields {
        for why in field.why {
            let _ = writeln!(out, "{indent}# {why}");
        }
        match &field.value {
            Value::Section(inner) => {
                let _ = writeln!(out, "{indent}{} {{", field.key);
                lines(out, inner, depth + 1);
                let _ = writeln!(out, "{indent}}}");
            }
            value => {
                let _ = writeln!(out, "{indent}{} = {}", field.key, scalar(value));
            }
        }
    }
}

fn object(fields: &[Field]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|field| match &field.value {
            Value::Section(inner) => format!("{} {}", field.key, object(inner)),
            value => format!("{} = {}", field.key, scalar(value)),
        })
        .collect();
    format!("{{ {} }}", fields.join(", "))
}

/// A value on one line.
pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::Word(word) => (*word).to_owned(),
        Value::Text(text) => quoted(text),
        Value::Texts(texts) => format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
        Value::Section(fields) => object(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_written_over_lines_and_on_one_line() {
        let tree = [
            Field::because(&["one", "two"], "provider", Value::Word("kms")),
            Field::new("tls", Value::Section(vec![Field::new("file", Value::Text("a\"b".into()))])),
            Field::new("urls", Value::Texts(vec!["x".into(), "y".into()])),
        ];
        assert_eq!(
            document("a.b", &tree),
            "a.b {\n  # one\n  # two\n  provider = kms\n  tls {\n    file = \"a\\\"b\"\n  }\n  urls = [\"x\", \"y\"]\n}\n"
        );
        assert_eq!(line("a.b", &tree), r#"a.b { provider = kms, tls { file = "a\"b" }, urls = ["x", "y"] }"#);
    }
}
