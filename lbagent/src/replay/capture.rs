//! Captured packets, from and to files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, TsResolution};

/// First bytes of a pcapng file: the type of its section header.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Resolution of pcapng timestamps unless an interface says otherwise: microseconds, as a power
/// of ten.
const DEFAULT_RESOLUTION: u8 = 6;

/// A packet with the moment of its capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured {
    pub(super) at: Duration,
    pub(super) bytes: Vec<u8>,
}

/// Reads a pcap or pcapng file of Ethernet packets.
pub(super) fn read(path: &Path) -> Result<Vec<Captured>> {
    let open = || -> Result<Vec<Captured>> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 4];
        file.read_exact(&mut magic)
            .context("it is too short for a capture")?;
        file.rewind()?;
        if magic == PCAPNG {
            read_pcapng(file)
        } else {
            read_pcap(file)
        }
    };
    open().with_context(|| format!("cannot read the packets of {}", path.display()))
}

fn read_pcap(file: impl Read) -> Result<Vec<Captured>> {
    let mut reader = PcapReader::new(file).context("it is no pcap file")?;
    require_ethernet(reader.header().datalink)?;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.with_context(|| format!("packet {}", packets.len()))?;
        packets.push(Captured {
            at: packet.timestamp,
            bytes: packet.data.into_owned(),
        });
    }
    Ok(packets)
}

fn read_pcapng(file: impl Read) -> Result<Vec<Captured>> {
    let mut reader = PcapNgReader::new(file).context("it is no pcapng file")?;
    let mut packets = Vec::new();
    let mut interfaces: Vec<(DataLink, u8)> = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.with_context(|| format!("after packet {}", packets.len()))? {
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                let resolution = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
                    _ => None,
                });
                interfaces.push((interface.linktype, resolution.unwrap_or(DEFAULT_RESOLUTION)));
            }
            Block::EnhancedPacket(packet) => {
                let Some((link, resolution)) = interfaces.get(packet.interface_id as usize) else {
                    bail!("packet {} names an unknown interface", packets.len());
                };
                require_ethernet(*link)?;
                // The reader takes the ticks of any resolution for nanoseconds.
                let at = scale(packet.timestamp.as_nanos(), *resolution);
                packets.push(Captured {
                    at,
                    bytes: packet.data.into_owned(),
                });
            }
            Block::SimplePacket(packet) => {
                if let Some((link, _)) = interfaces.first() {
                    require_ethernet(*link)?;
                }
                packets.push(Captured {
                    at: Duration::ZERO,
                    bytes: packet.data.into_owned(),
                });
            }
            _ => {}
        }
    }
    Ok(packets)
}

/// A number of ticks as a time. The highest bit of a resolution selects powers of two.
fn scale(ticks: u128, resolution: u8) -> Duration {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    let per_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
    let seconds = u64::try_from(ticks / per_second).unwrap_or(u64::MAX);
    let rest = (ticks % per_second).saturating_mul(1_000_000_000) / per_second;
    Duration::new(seconds, u32::try_from(rest).unwrap_or(0))
}

fn require_ethernet(link: DataLink) -> Result<()> {
    if link != DataLink::ETHERNET {
        bail!("it holds packets of link type {link:?}; only Ethernet can be replayed");
    }
    Ok(())
}

/// Writes packets to a pcap file with nanosecond timestamps.
pub(super) struct Writer {
    writer: PcapWriter<BufWriter<File>>,
    written: u64,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            datalink: DataLink::ETHERNET,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)
            .with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { writer, written: 0 })
    }

    /// Adds a packet; returns its index.
    pub(super) fn add(&mut self, at: Duration, bytes: &[u8]) -> Result<u64> {
        let length = u32::try_from(bytes.len())?;
        self.writer
            .write_packet(&PcapPacket::new(at, length, bytes))?;
        self.written += 1;
        Ok(self.written - 1)
    }

    /// Writes what is left in memory.
    pub(super) fn finish(self) -> Result<()> {
        Ok(self.writer.into_writer().flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packets.pcap");
        let packets = [
            Captured {
                at: Duration::new(1_700_000_000, 123_456_789),
                bytes: vec![1; 60],
            },
            Captured {
                at: Duration::new(1_700_000_001, 0),
                bytes: vec![2; 1514],
            },
        ];
        let mut writer = Writer::create(&path).unwrap();
        for (index, packet) in packets.iter().enumerate() {
            assert_eq!(writer.add(packet.at, &packet.bytes).unwrap(), index as u64);
        }
        writer.finish().unwrap();
        assert_eq!(read(&path).unwrap(), packets);
    }

    #[test]
    fn pcapng_is_read_too() {
        let block = |kind: u32, body: &[u8]| {
            let length = (12 + body.len()) as u32;
            [
                &kind.to_le_bytes()[..],
                &length.to_le_bytes(),
                body,
                &length.to_le_bytes(),
            ]
            .concat()
        };
        let section = [
            &0x1a2b_3c4d_u32.to_le_bytes()[..],
            &[1, 0, 0, 0],
            &[0xff; 8],
        ]
        .concat();
        let interface = [1, 0, 0, 0, 0, 0, 4, 0];
        let microseconds = 1_700_000_000_000_001_u64;
        let (high, low) = ((microseconds >> 32) as u32, microseconds as u32);
        let numbers = [0, high, low, 16, 16].map(u32::to_le_bytes).concat();
        let packet = [&numbers[..], &[7; 16]].concat();
        let file = [
            block(0x0a0d_0d0a, &section),
            block(1, &interface),
            block(6, &packet),
        ]
        .concat();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packets.pcapng");
        std::fs::write(&path, file).unwrap();
        let expected = Captured {
            at: Duration::new(1_700_000_000, 1_000),
            bytes: vec![7; 16],
        };
        assert_eq!(read(&path).unwrap(), [expected]);
    }

    #[test]
    fn what_is_no_capture_is_named() {
        #[track_caller]
        fn check(bytes: &[u8], expected: &str) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x.pcap");
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains("x.pcap"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let header = |link: u32| {
            let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
            bytes.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]);
            bytes.extend(link.to_le_bytes());
            bytes
        };
        check(b"", "too short");
        check(&[b'x'; 100], "no pcap file");
        check(&header(113), "only Ethernet");
        check(&[header(1), vec![0; 8]].concat(), "packet 0");
    }
}
