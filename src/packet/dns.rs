//! The name that a DNS query asks for, as far as it tells of a tunnel.
//!
//! A tunnel puts what it carries into labels below a domain of its own. What names hold anyway is not counted: labels
//! of up to three characters (octets and nibbles of addresses asked for backwards), those with an underscore in front
//! (services, RFC 2782), and all of `arpa`.

use super::domain::Domain;

const HEADER: usize = 12;
/// RFC 1035, 3.1: of a whole name, and of a label.
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// Labels shorter than this carry nothing.
const SHORTEST: usize = 4;
/// A name that carries fewer characters is like any other. Generated host names of content networks have about twenty.
const LEAST_CARRIED: u16 = 24;
/// No top-level domain is longer, save those that begin with `xn--`.
const LONGEST_TOP: usize = 18;

/// A name that carries much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The last two labels; where the last one can be no top-level domain, the first label.
    pub domain: Domain,
    /// Hash of the whole name, in lower case.
    pub name: u64,
    /// Characters in the labels before the domain.
    pub carried: u16,
}

/// The first question of a query of which `payload` are the captured bytes; `None` of anything else, and of names that
/// carry little.
pub fn long_question(payload: &[u8]) -> Option<Question> {
    let (head, rest) = payload.split_at_checked(HEADER)?;
    // QR and opcode 0, and there is a question.
    if head[2] & 0xf8 != 0 || head[4..6] == [0, 0] {
        return None;
    }
    let mut name = Name::default();
    let mut at = 0;
    loop {
        let len = usize::from(*rest.get(at)?);
        if len == 0 {
            return name.question();
        }
        if len > MAX_LABEL || at + len > MAX_NAME {
            return None;
        }
        name.label(rest.get(at + 1..at + 1 + len)?);
        at += 1 + len;
    }
}

/// What is kept of the labels read so far.
#[derive(Default)]
struct Name<'a> {
    first: &'a [u8],
    /// The last two.
    ends: [&'a [u8]; 2],
    hash: u64,
    carried: u16,
}

impl<'a> Name<'a> {
    fn label(&mut self, label: &'a [u8]) {
        if self.first.is_empty() {
            self.first = label;
        }
        self.carried += weight(self.ends[0]);
        self.ends = [self.ends[1], label];
        // FNV-1a, 64 bits; a dot after each label.
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let start = if self.hash == 0 { 0xcbf2_9ce4_8422_2325 } else { self.hash };
        self.hash = label.iter().map(u8::to_ascii_lowercase).chain([b'.']).fold(start, fold);
    }

    fn question(self) -> Option<Question> {
        let [below, top] = self.ends;
        if top.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        let (domain, carried) = if is_top(top) {
            let mut text = [0; 2 * MAX_LABEL + 1];
            let len = below.len() + 1 + top.len();
            text[..below.len()].copy_from_slice(below);
            text[below.len()] = b'.';
            text[below.len() + 1..len].copy_from_slice(top);
            (Domain::new(&text[..len]), self.carried)
        } else {
            let all = self.carried + weight(below) + weight(top);
            (Domain::new(self.first), all - weight(self.first).min(all))
        };
        (carried >= LEAST_CARRIED).then_some(Question { domain, name: self.hash, carried })
    }
}

fn weight(label: &[u8]) -> u16 {
    if label.len() < SHORTEST || label.starts_with(b"_") { 0 } else { label.len() as u16 }
}

fn is_top(label: &[u8]) -> bool {
    label.len() >= 4 && label[..4].eq_ignore_ascii_case(b"xn--")
        || label.len() <= LONGEST_TOP && !label.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    }

    fn carried(name: &str) -> Option<(String, u16)> {
        long_question(&query(name)).map(|q| (q.domain.to_string(), q.carried))
    }

    #[test]
    fn counts_what_stands_below_the_domain() {
        let hex = "654a01b8d3ddd4f23c9d260012a13c74bf";
        assert_eq!(carried(&format!("{hex}.Tunnel.example")), Some(("tunnel.example".into(), 34)));
        assert_eq!(carried(&format!("{hex}.{hex}.tunnel.example")).unwrap().1, 68);
        // One character less than what is told, and as many.
        assert_eq!(carried(&format!("{}.tunnel.example", &hex[..23])), None);
        assert_eq!(carried(&format!("{}.tunnel.example", &hex[..24])).unwrap().1, 24);
        // Without a public domain: everything but the first label.
        assert_eq!(carried(&format!("tool.{hex}.{hex}")), Some(("tool".into(), 68)));
    }

    #[test]
    fn names_that_are_long_anyway_carry_nothing() {
        for name in [
            "www.example.com",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
            "156.229.168.192.spam.dnsbl.sorbs.net",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.list.example",
            "_ldap._tcp.dc._msdcs.office.example.com",
            "",
        ] {
            assert_eq!(carried(name), None, "{name}");
        }
    }

    #[test]
    fn only_whole_queries() {
        let whole = query("654a01b8d3ddd4f23c9d260012a13c74bf.tunnel.example");
        assert!(long_question(&whole).is_some());
        for len in 0..whole.len() - 5 {
            assert_eq!(long_question(&whole[..len]), None, "{len}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(long_question(&answer), None);
        let mut pointer = whole;
        pointer[HEADER] = 0xc0;
        assert_eq!(long_question(&pointer), None);
        assert_eq!(long_question(&[&[0u8; HEADER][..], &[63; 600]].concat()), None);
        // Case does not make another name.
        let [one, other] = ["Abcdefghijklmnopqrstuvwxyz.t.example", "aBcdefghijklmnopqrstuvwxyz.t.example"];
        assert_eq!(long_question(&query(one)).unwrap().name, long_question(&query(other)).unwrap().name);
    }
}
