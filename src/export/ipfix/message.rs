//! Messages: a header and sets of records, never longer than asked for.

use super::wire::Put;

const VERSION: u16 = 10;
const HEADER: usize = 16;
const SET_HEADER: usize = 4;

/// The longest record that fits into a message of `limit` bytes.
pub const fn room(limit: usize) -> usize {
    limit - HEADER - SET_HEADER
}

/// A message in the making.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
    limit: usize,
    /// Number and start of the set at the end.
    set: Option<(u16, usize)>,
    /// Data records in it, flows and options.
    data_records: u32,
}

impl Message {
    /// An empty message of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let mut bytes = Vec::with_capacity(limit);
        bytes.resize(HEADER, 0);
        Self { bytes, limit, set: None, data_records: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Data records in it, flows and options.
    pub fn data_records(&self) -> u32 {
        self.data_records
    }

    /// Adds a record (data or template) to the set of this number; false when there is no room left for it.
    /// Options templates get a set each: `nfcapd` 1.7 reads only the first in a set.
    pub fn add(&mut self, set: u16, record: &[u8]) -> bool {
        let open =
            matches!(self.set, Some((number, _)) if number == set && set != super::template::OPTIONS_TEMPLATE_SET);
        let header = if open { 0 } else { SET_HEADER };
        if self.bytes.len() + header + record.len() > self.limit {
            return false;
        }
        if !open {
            self.set = Some((set, self.bytes.len()));
            self.bytes.put_u16(set);
            self.bytes.put_u16(0);
        }
        self.bytes.extend(record);
        if let Some((number, start)) = self.set {
            let length = (self.bytes.len() - start) as u16;
            self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
            self.data_records += u32::from(number >= super::record::FIRST_TEMPLATE);
        }
        true
    }

    /// The finished bytes. `sequence` is how many data records came before, `seconds` the time of sending since 1970.
    pub fn finish(&mut self, seconds: u32, sequence: u32, domain: u32) -> &[u8] {
        let mut header = Vec::with_capacity(HEADER);
        header.put_u16(VERSION);
        header.put_u16(self.bytes.len() as u16);
        header.put_u32(seconds);
        header.put_u32(sequence);
        header.put_u32(domain);
        self.bytes[..HEADER].copy_from_slice(&header);
        &self.bytes
    }

    /// Ready for the next one.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER);
        self.set = None;
        self.data_records = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_joined_and_the_limit_holds() {
        let mut message = Message::new(16 + 4 + 6 + 4 + 3);
        assert!(message.is_empty());
        assert!(message.add(256, &[1, 2, 3]) && message.add(256, &[4, 5, 6]) && message.add(257, &[7, 8, 9]));
        assert!(!message.add(257, &[10]), "full");
        assert_eq!(message.data_records(), 3);
        let bytes = message.finish(5, 6, 7);
        assert_eq!(bytes[..16], [0, 10, 0, 33, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7]);
        assert_eq!(bytes[16..], [1, 0, 0, 10, 1, 2, 3, 4, 5, 6, 1, 1, 0, 7, 7, 8, 9]);
        message.clear();
        assert!(message.is_empty() && message.add(2, &[0; 13]));
        assert_eq!(message.data_records(), 0, "templates are not counted");
    }
}
