//! Ports with `tls` alone: what one side sends is what the other gets.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lbagent_tests::gateway::SERVER_PORT;
use lbagent_tests::pattern::{CHUNK, Pattern};
use lbagent_tests::require_root;
use lbagent_tests::resident::block_on;
use lbagent_tests::site::{NAME, Site, https};
use lbagent_tests::slowness::scale;
use lbagent_tests::topology::VIPS;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const PORT: u16 = 7443;

/// Has so many bytes sent back while it sends them.
async fn exchange(site: &Site, to: SocketAddr, length: u64) -> Result<()> {
    let stream = site.trust.connect(to, NAME).await?;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let mut greeting = String::new();
    reader.read_line(&mut greeting).await?;
    ensure!(greeting.starts_with("b1 "), "{greeting:?}");
    writer.write_all(b"echo\n").await?;
    let send = async {
        let mut pattern = Pattern::new(length);
        let mut chunk = vec![0; CHUNK];
        while let filled @ 1.. = pattern.fill(&mut chunk) {
            writer.write_all(&chunk[..filled]).await?;
        }
        // One way ends; what is under way the other way still comes.
        anyhow::Ok(writer.shutdown().await?)
    };
    let receive = async {
        let mut pattern = Pattern::new(length);
        let mut chunk = vec![0; CHUNK];
        while let expected @ 1.. = pattern.next_len() {
            reader.read_exact(&mut chunk[..expected]).await?;
            pattern.check(&chunk[..expected])?;
        }
        ensure!(reader.read(&mut chunk).await? == 0, "too many bytes");
        Ok(())
    };
    tokio::try_join!(send, receive).map(drop)
}

#[test]
fn bytes_of_tls_alone_arrive_as_they_were_both_ways_at_once() {
    require_root!();
    // 10 GB there and as much back; usually 64 MB.
    let lengths = scale([32_000_000; 2], [5_000_000_000; 2]);
    let tls = json!({ "port": PORT, "destination_port": SERVER_PORT, "handlers": ["tls"] });
    let site = Site::start_with(1, |_| {}, &[https(443), tls]).unwrap();
    for (vip, length) in VIPS.into_iter().zip(lengths) {
        site.wait_for(vip).unwrap();
        let client = &site.gateway.topology.client;
        let to = SocketAddr::new(vip, PORT);
        block_on(client, || exchange(&site, to, length)).unwrap();
    }
}
