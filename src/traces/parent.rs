//! The W3C trace context of a caller: the header `traceparent`. A header that is not valid is no context.

use super::span::{SpanId, TraceId};

/// What a caller says of the trace that its request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// The id of the trace: 32 lower-case hex digits, not all zeros.
    pub trace_id: &'a str,
    /// The id of the caller's span: 16 lower-case hex digits, not all zeros.
    pub span_id: &'a str,
    /// Whether the caller traces the call.
    pub sampled: bool,
}

impl<'a> TraceParent<'a> {
    /// Reads `<version>-<32 hex>-<16 hex>-<2 hex>`. Later versions may have more parts (W3C Trace Context, section 3.2).
    pub fn parse(header: &'a str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_id = |text: &str, length: usize| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
        let valid = is_hex(version, 2)
            && version != "ff"
            && is_id(trace_id, 32)
            && is_id(span_id, 16)
            && is_hex(flags, 2)
            && (version != "00" || parts.next().is_none());
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        valid.then_some(Self { trace_id, span_id, sampled })
    }

    /// The ids as bytes.
    pub(super) fn ids(&self) -> Option<(TraceId, SpanId)> {
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        base16ct::lower::decode(self.trace_id, &mut trace).ok()?;
        base16ct::lower::decode(self.span_id, &mut span).ok()?;
        Some((TraceId(trace), SpanId(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_header_is_a_context() {
        let (trace_id, span_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (header, sampled) in [
            (format!("00-{trace_id}-{span_id}-01"), true),
            (format!("00-{trace_id}-{span_id}-00"), false),
            (format!("00-{trace_id}-{span_id}-03"), true),
            (format!("cc-{trace_id}-{span_id}-01-what-a-later-version-adds"), true),
        ] {
            assert_eq!(TraceParent::parse(&header), Some(TraceParent { trace_id, span_id, sampled }), "{header}");
        }
        for bad in [
            String::new(),
            "00".into(),
            format!("00-xyz-{span_id}-01"),
            format!("00-{}-{span_id}-01", "0".repeat(32)),
            format!("00-{trace_id}-{}-01", "0".repeat(16)),
            format!("ff-{trace_id}-{span_id}-01"),
            format!("00-{trace_id}-{span_id}"),
            format!("00-{trace_id}-{span_id}-0x"),
            format!("00-{trace_id}-{span_id}-01-more"),
            format!("00-{}-{span_id}-01", trace_id.to_uppercase()),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }
}
