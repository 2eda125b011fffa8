//! A reader of IPFIX written from RFC 7011, 5103 and 5610. It shares nothing with the exporter: it believes the templates.

use std::collections::BTreeMap;

/// Enterprise number (0 for IANA) and element number.
pub type Field = (u32, u16);

/// Reverse elements (RFC 5103).
pub const REVERSE: u32 = 29305;

#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub length: usize,
    pub seconds: u32,
    pub sequence: u32,
    pub domain: u32,
}

/// One data record: fields in order, each with its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub template: u16,
    pub options: bool,
    pub fields: Vec<(Field, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Template {
    scopes: usize,
    options: bool,
    fields: Vec<(Field, u16)>,
}

/// What a collector knows, and what it has seen.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    templates: BTreeMap<u16, Template>,
    pub headers: Vec<Header>,
    pub records: Vec<Record>,
    /// Data records of sets whose template was not known cannot be counted, sets can.
    pub unknown_sets: usize,
    /// Messages that had templates.
    pub template_messages: usize,
    /// Data records by message.
    pub counts: Vec<u32>,
}

impl Record {
    pub fn has(&self, field: Field) -> bool {
        self.fields.iter().any(|(f, _)| *f == field)
    }

    pub fn bytes(&self, field: Field) -> &[u8] {
        let found = self.fields.iter().find(|(f, _)| *f == field);
        &found.unwrap_or_else(|| panic!("no element {field:?} in template {}", self.template)).1
    }

    pub fn number(&self, field: Field) -> u64 {
        self.bytes(field).iter().fold(0, |n, byte| (n << 8) | u64::from(*byte))
    }

    pub fn text(&self, field: Field) -> String {
        String::from_utf8(self.bytes(field).to_vec()).expect("UTF-8")
    }

    pub fn f32(&self, field: Field) -> f32 {
        f32::from_be_bytes(self.bytes(field).try_into().expect("four bytes"))
    }

    pub fn f64(&self, field: Field) -> f64 {
        f64::from_be_bytes(self.bytes(field).try_into().expect("eight bytes"))
    }

    /// A dateTimeNanoseconds as nanoseconds since 1970; the years from 1970 to 2036.
    pub fn nanoseconds(&self, field: Field) -> u64 {
        let (seconds, fraction) = (self.number(field) >> 32, self.number(field) & 0xffff_ffff);
        (seconds - 2_208_988_800) * 1_000_000_000 + ((fraction * 1_000_000_000) >> 32)
    }

    pub fn address(&self, four: Field, six: Field) -> std::net::IpAddr {
        if self.has(four) {
            <[u8; 4]>::try_from(self.bytes(four)).expect("an IPv4 address").into()
        } else {
            <[u8; 16]>::try_from(self.bytes(six)).expect("an IPv6 address").into()
        }
    }
}

impl Decoder {
    /// Flow records: those of no options template.
    pub fn flows(&self) -> Vec<&Record> {
        self.records.iter().filter(|record| !record.options).collect()
    }

    /// Options records of templates that have this field.
    pub fn options(&self, field: Field) -> Vec<&Record> {
        self.records.iter().filter(|record| record.options && record.has(field)).collect()
    }

    /// All complete messages of a byte stream.
    pub fn stream(&mut self, mut bytes: &[u8]) {
        while bytes.len() >= 16 {
            let length = usize::from(half(&bytes[2..]));
            if length > bytes.len() {
                return;
            }
            self.message(&bytes[..length]);
            bytes = &bytes[length..];
        }
    }

    /// One message, which must be sound.
    pub fn message(&mut self, bytes: &[u8]) {
        assert_eq!(half(bytes), 10, "version");
        assert_eq!(usize::from(half(&bytes[2..])), bytes.len(), "length");
        let (seconds, sequence, domain) = (word(&bytes[4..]), word(&bytes[8..]), word(&bytes[12..]));
        self.headers.push(Header { length: bytes.len(), seconds, sequence, domain });
        let (before, mut has_templates, mut rest) = (self.records.len(), false, &bytes[16..]);
        while !rest.is_empty() {
            let (id, length) = (half(rest), usize::from(half(&rest[2..])));
            assert!(length > 4 && length <= rest.len(), "set length {length} of {}", rest.len());
            let body = &rest[4..length];
            match id {
                2 | 3 => {
                    has_templates = true;
                    self.learn(body, id == 3);
                }
                256.. => self.data(id, body),
                _ => panic!("set {id}"),
            }
            rest = &rest[length..];
        }
        self.template_messages += usize::from(has_templates);
        self.counts.push((self.records.len() - before) as u32);
    }

    fn learn(&mut self, mut body: &[u8], options: bool) {
        while body.len() >= 4 {
            let (id, count) = (half(body), half(&body[2..]));
            let scopes = if options { usize::from(half(&body[4..])) } else { 0 };
            assert!(id >= 256 && count > 0 && (!options || scopes > 0), "template {id}");
            body = &body[if options { 6 } else { 4 }..];
            let mut fields = Vec::new();
            for _ in 0..count {
                let (number, length) = (half(body), half(&body[2..]));
                body = &body[4..];
                if number & 0x8000 == 0 {
                    fields.push(((0, number), length));
                } else {
                    fields.push(((word(body), number & 0x7fff), length));
                    body = &body[4..];
                }
            }
            let old = self.templates.insert(id, Template { scopes, options, fields: fields.clone() });
            assert!(old.is_none_or(|old| old.fields == fields), "template {id} changed");
        }
        assert!(body.is_empty(), "padding after templates");
    }

    fn data(&mut self, id: u16, mut body: &[u8]) {
        let Some(template) = self.templates.get(&id) else {
            self.unknown_sets += 1;
            return;
        };
        assert!(template.scopes <= template.fields.len());
        while !body.is_empty() {
            let mut fields = Vec::new();
            for (field, length) in &template.fields {
                let mut length = usize::from(*length);
                if length == 0xffff {
                    length = usize::from(body[0]);
                    body = &body[1..];
                    if length == 255 {
                        length = usize::from(half(body));
                        body = &body[2..];
                    }
                }
                fields.push((*field, body[..length].to_vec()));
                body = &body[length..];
            }
            self.records.push(Record { template: id, options: template.options, fields });
        }
    }
}

fn half(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
