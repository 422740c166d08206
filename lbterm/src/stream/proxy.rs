//! The header of the PROXY protocol, version 2, by which an instance learns who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ppp::v2::{Addresses, Builder, Command, IPv4, IPv6, Protocol, Type, Version};

use crate::conn::ConnMeta;

/// Bits of the first byte of the TLV about TLS: the client used it, on this connection.
const CLIENT_SSL: u8 = 0x01;

/// The header for a client's connection: both addresses, and for TLS the server name, version and
/// cipher.
pub fn header(meta: &ConnMeta) -> std::io::Result<Vec<u8>> {
    let addresses = match (meta.peer, meta.dialled) {
        (SocketAddr::V4(peer), SocketAddr::V4(dialled)) => Addresses::from(IPv4::new(
            *peer.ip(),
            *dialled.ip(),
            peer.port(),
            dialled.port(),
        )),
        (SocketAddr::V6(peer), SocketAddr::V6(dialled)) => Addresses::from(IPv6::new(
            *peer.ip(),
            *dialled.ip(),
            peer.port(),
            dialled.port(),
        )),
        // A proxy in front of the gateway may tell a client of the other family.
        (peer, dialled) => Addresses::from(IPv6::new(
            mapped(peer.ip()),
            mapped(dialled.ip()),
            peer.port(),
            dialled.port(),
        )),
    };
    let mut builder =
        Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses);
    if let Some(tls) = &meta.tls {
        if let Some(name) = &tls.server_name {
            builder = builder.write_tlv(Type::Authority, name.as_bytes())?;
        }
        let mut about = vec![CLIENT_SSL];
        // What a client certificate was verified as: there was none.
        about.extend(1_u32.to_be_bytes());
        for (kind, text) in [
            (Type::SSLVersion, tls.version),
            (Type::SSLCipher, tls.cipher),
        ] {
            about.push(kind.into());
            about.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            about.extend(text.as_bytes());
        }
        builder = builder.write_tlv(Type::SSL, &about)?;
    }
    builder.build()
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use crate::conn::{Alpn, TlsMeta};

    use super::*;

    #[test]
    fn a_header_tells_addresses_and_server_name() {
        let tls = TlsMeta {
            server_name: Some("a.example".into()),
            alpn: Alpn::None,
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            is_resumed: false,
        };
        let mut meta = ConnMeta {
            id: 1,
            peer: "192.0.2.9:50000".parse().unwrap(),
            dialled: "198.51.100.1:8443".parse().unwrap(),
            tls: Some(tls),
        };
        let bytes = header(&meta).unwrap();
        let read = ppp::v2::Header::try_from(&bytes[..]).unwrap();
        let addresses = IPv4::new([192, 0, 2, 9], [198, 51, 100, 1], 50000, 8443);
        assert_eq!(read.addresses, Addresses::from(addresses));
        let tlvs: Vec<_> = read.tlvs().map(Result::unwrap).collect();
        assert_eq!(tlvs[0].kind, u8::from(Type::Authority));
        assert_eq!(&*tlvs[0].value, b"a.example");
        assert_eq!(tlvs[1].kind, u8::from(Type::SSL));
        // Flags, result, then the version as a TLV of its own.
        assert_eq!(&tlvs[1].value[..15], b"\x01\0\0\0\x01\x21\0\x07TLSv1.3");
        assert_eq!(&tlvs[1].value[15..], b"\x23\0\x18TLS13_AES_256_GCM_SHA384");

        meta.peer = "[2001:db8::9]:50000".parse().unwrap();
        meta.dialled = "[2001:db8::1]:8443".parse().unwrap();
        meta.tls = None;
        let bytes = header(&meta).unwrap();
        assert_eq!(bytes.len(), 16 + 36);
    }

    #[test]
    fn a_header_names_the_client_before_what_it_dialled() {
        let check = |peer: &str, dialled: &str, addresses: [&str; 2]| {
            let meta = ConnMeta {
                id: 1,
                peer: peer.parse().unwrap(),
                dialled: dialled.parse().unwrap(),
                tls: None,
            };
            let bytes = header(&meta).unwrap();
            let read = ppp::v2::Header::try_from(&bytes[..]).unwrap();
            let [source, destination] = addresses.map(|it| it.parse::<Ipv6Addr>().unwrap());
            let expected = IPv6::new(source, destination, 50000, 8443);
            assert_eq!(
                read.addresses,
                Addresses::from(expected),
                "{peer} to {dialled}"
            );
        };
        check(
            "[2001:db8::9]:50000",
            "[2001:db8::1]:8443",
            ["2001:db8::9", "2001:db8::1"],
        );
        check(
            "[2001:db8::9]:50000",
            "198.51.100.1:8443",
            ["2001:db8::9", "::ffff:198.51.100.1"],
        );
        check(
            "192.0.2.9:50000",
            "[2001:db8::1]:8443",
            ["::ffff:192.0.2.9", "2001:db8::1"],
        );
    }
}
