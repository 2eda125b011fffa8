use std::io::Write;

use proptest::prelude::*;

use super::*;

/// Owned copy of what a reader gave: time, link, bytes, wire length, interface.
type Row = (u64, u32, Vec<u8>, u32, u32);

fn read(bytes: &[u8]) -> Result<(Vec<Row>, Option<String>), CaptureError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture");
    std::fs::write(&path, bytes).unwrap();
    let mut reader = CaptureReader::open(&path)?;
    let mut rows = Vec::new();
    while let Some(f) = reader.next_frame()? {
        assert!(f.wire_len as usize >= f.data.len());
        rows.push((f.ts_ns, f.link.0, f.data.to_vec(), f.wire_len, f.interface));
    }
    assert!(reader.next_frame()?.is_none(), "the end stays the end");
    Ok((rows, reader.truncation().map(str::to_owned)))
}

/// Appends numbers in one byte order.
#[derive(Clone)]
struct Bytes {
    big: bool,
    out: Vec<u8>,
}

impl Bytes {
    fn new(big: bool) -> Self {
        Self { big, out: Vec::new() }
    }

    fn u16(mut self, v: u16) -> Self {
        self.out.extend_from_slice(&if self.big { v.to_be_bytes() } else { v.to_le_bytes() });
        self
    }

    fn u32(mut self, v: u32) -> Self {
        self.out.extend_from_slice(&if self.big { v.to_be_bytes() } else { v.to_le_bytes() });
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    fn padded(mut self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self
    }

    /// A pcapng block around a body made in the same byte order.
    fn block(self, kind: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let inner = body(Self::new(self.big)).out;
        let length = inner.len() as u32 + 12;
        self.u32(kind).u32(length).raw(&inner).u32(length)
    }

    fn section(self) -> Self {
        self.block(0x0a0d_0d0a, |b| b.u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX))
    }

    fn interface(self, link: u16, snap_len: u32, resolution: Option<u8>, offset: Option<i64>) -> Self {
        self.block(1, |mut b| {
            b = b.u16(link).u16(0).u32(snap_len);
            if let Some(resolution) = resolution {
                b = b.u16(9).u16(1).padded(&[resolution]);
            }
            if let Some(offset) = offset {
                let bytes = if b.big { offset.to_be_bytes() } else { offset.to_le_bytes() };
                b = b.u16(14).u16(8).raw(&bytes);
            }
            if resolution.is_some() || offset.is_some() { b.u16(0).u16(0) } else { b }
        })
    }

    fn enhanced(self, interface: u32, stamp: u64, data: &[u8], wire: u32) -> Self {
        self.block(6, |b| {
            b.u32(interface)
                .u32((stamp >> 32) as u32)
                .u32(stamp as u32)
                .u32(data.len() as u32)
                .u32(wire)
                .padded(data)
                // A comment option, so that options are passed over.
                .u16(1)
                .u16(3)
                .padded(b"hey")
                .u16(0)
                .u16(0)
        })
    }
}

fn pcap(big: bool, magic: u32, link: u32) -> Bytes {
    Bytes::new(big).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65535).u32(link)
}

#[test]
fn pcap_in_every_variant() {
    for big in [false, true] {
        for (magic, unit) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1), (0xa1b2_cd34, 1_000)] {
            let extra: &[u8] = if magic == 0xa1b2_cd34 { &[9; 8] } else { &[] };
            let file = pcap(big, magic, 101).u32(10).u32(7).u32(3).u32(60).raw(extra).raw(b"abc");
            let file = file.u32(11).u32(0).u32(2).u32(1).raw(extra).raw(b"de");
            let (rows, truncation) = read(&file.out).unwrap();
            let first = (10_000_000_000 + 7 * unit, 101, b"abc".to_vec(), 60, 0);
            let second = (11_000_000_000, 101, b"de".to_vec(), 2, 0);
            assert_eq!((rows, truncation), (vec![first, second], None), "{big} {magic:x}");
        }
    }
}

fn example_pcapng(big: bool) -> Vec<u8> {
    Bytes::new(big)
        .section()
        .interface(1, 0, None, None)
        .interface(101, 3, Some(9), Some(100))
        .enhanced(0, 5_000_000, b"abcde", 50)
        .enhanced(1, 7, b"f", 1)
        .block(0x0bad, |b| b.u32(32473).raw(&[1; 40]))
        .block(2, |b| b.u16(1).u16(0).u32(0).u32(8).u32(2).u32(9).padded(b"gh"))
        .block(3, |b| b.u32(2).padded(b"ij"))
        .enhanced(7, 1, b"k", 1)
        .out
}

#[test]
fn pcapng_blocks_interfaces_and_sections() {
    let section = |n: u64| {
        vec![
            (5_000_000_000, 1, b"abcde".to_vec(), 50, 0),
            (100_000_000_007, 101, b"f".to_vec(), 1, 1),
            (100_000_000_008, 101, b"gh".to_vec(), 9, 1),
            (100_000_000_008, 1, b"ij".to_vec(), 2, 0),
            (1_000, u32::MAX, b"k".to_vec(), 1, 7),
        ]
        .into_iter()
        .chain((n > 1).then_some((3_000, 113, b"z".to_vec(), 1, 0)))
        .collect::<Vec<Row>>()
    };
    for big in [false, true] {
        assert_eq!(read(&example_pcapng(big)).unwrap(), (section(1), None));
        // A second section of the other byte order starts its interfaces anew.
        let second = Bytes::new(!big).section().interface(113, 0, None, None).enhanced(0, 3, b"z", 1).out;
        let both = [example_pcapng(big), second].concat();
        assert_eq!(read(&both).unwrap(), (section(2), None));
    }
}

#[test]
fn a_simple_packet_is_cut_at_the_snap_length() {
    let file = Bytes::new(false).section().interface(1, 3, None, None).block(3, |b| b.u32(100).padded(b"abcd")).out;
    assert_eq!(read(&file).unwrap().0, [(0, 1, b"abc".to_vec(), 100, 0)]);
}

#[test]
fn cut_anywhere_gives_the_whole_frames_and_says_so() {
    let little = pcap(false, 0xa1b2_c3d4, 1).u32(1).u32(0).u32(3).u32(3).raw(b"abc").u32(2).u32(0).u32(1).u32(1);
    let file = little.raw(b"d").out;
    for cut in 4..file.len() {
        let (rows, truncation) = read(&file[..cut]).unwrap();
        let whole = usize::from(cut >= 24 + 19);
        assert_eq!(rows.len(), whole, "cut at {cut}");
        assert_eq!(truncation.is_some(), cut != 24 && cut != 24 + 19, "cut at {cut}");
    }
    let file = example_pcapng(true);
    let all = read(&file).unwrap().0;
    let mut ends = 0;
    for cut in 4..file.len() {
        let (rows, truncation) = read(&file[..cut]).unwrap();
        assert_eq!(rows, all[..rows.len()]);
        ends += usize::from(truncation.is_none());
    }
    assert_eq!(ends, 8, "only between blocks");
}

#[test]
fn gzip_whole_cut_and_wrong() {
    let plain = example_pcapng(false);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(&plain).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(read(&packed).unwrap(), read(&plain).unwrap());
    let (rows, truncation) = read(&packed[..packed.len() * 2 / 3]).unwrap();
    assert!(rows.len() < 5 && truncation.is_some());
    assert!(read(&[0x1f, 0x8b, 8, 0, 1, 2]).is_err());
}

#[test]
fn absurd_lengths_end_the_file_without_memory() {
    let file = pcap(false, 0xa1b2_c3d4, 1).u32(1).u32(0).u32(0xffff_fff0).u32(60).raw(&[0; 100]).out;
    let (rows, truncation) = read(&file).unwrap();
    assert!(rows.is_empty() && truncation.unwrap().contains("4294967280"));
    for (kind, length) in [(6, 0xffff_fff0_u32), (6, 4), (1, 13), (5, 0), (0x99, 0xffff_fffc)] {
        let file = Bytes::new(false).section().u32(kind).u32(length).raw(&[0; 100]).out;
        let (rows, truncation) = read(&file).unwrap();
        assert!(rows.is_empty() && truncation.is_some(), "{kind} {length}");
    }
    let lying = Bytes::new(false).section().interface(1, 0, None, None);
    let lying = lying.block(6, |b| b.u32(0).u32(0).u32(0).u32(0xffff_fffd).u32(0).raw(&[0; 8])).out;
    assert!(read(&lying).unwrap().1.is_some());
}

#[test]
fn what_is_not_a_capture_is_an_error() {
    for bytes in [&b""[..], b"\xd4", b"GET / HTTP/1.1\r\n", b"\x0a\x0d\x0d\x0a\x1c\0\0\0nope", &[0; 64]] {
        assert!(matches!(read(bytes), Err(CaptureError::NotACapture { .. })), "{bytes:?}");
    }
    assert!(matches!(CaptureReader::open(Path::new("/nowhere")), Err(CaptureError::Open { .. })));
}

#[test]
fn reads_public_captures() {
    let shared = std::env::var_os("GNOMON_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let catalog = shared.join("captures/catalog.csv");
    let Ok(mut rows) = csv::Reader::from_path(&catalog) else {
        println!("skipped: no captures at {}", catalog.display());
        return;
    };
    let headers = rows.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|h| h == name);
    let (Some(file), Some(packets)) = (column("file"), column("packets")) else {
        panic!("the catalog lacks a column: {headers:?}");
    };
    let mut checked = 0;
    for row in rows.records() {
        let row = row.unwrap();
        let path = shared.join("captures").join(&row[file]);
        if !path.exists() {
            continue;
        }
        let mut reader = CaptureReader::open(&path).unwrap();
        let mut count = 0_u64;
        while reader.next_frame().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, row[packets].parse::<u64>().unwrap(), "{}", path.display());
        checked += 1;
    }
    assert!(checked > 100, "only {checked} captures were found");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_without_panic(
        start in 0_usize..6,
        rest in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let head = match start {
            0 => pcap(false, 0xa1b2_c3d4, 1).out,
            1 => pcap(true, 0xa1b2_cd34, 1).out,
            2 => Bytes::new(false).section().out,
            3 => Bytes::new(true).section().interface(1, 0, Some(200), Some(-1)).out,
            4 => vec![0x0a, 0x0d, 0x0d, 0x0a],
            _ => Vec::new(),
        };
        let _ = read(&[head, rest].concat());
    }

    #[test]
    fn a_changed_byte_is_read_without_panic(at in 0_usize..420, value in any::<u8>(), big in any::<bool>()) {
        let mut file = example_pcapng(big);
        let at = at % file.len();
        file[at] = value;
        let _ = read(&file);
    }
}
