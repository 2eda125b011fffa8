//! Collectors of flow records.

use std::collections::HashMap;

use super::settings::duration;
use crate::config::document::Place;
use crate::config::model::{Ipfix, IpfixTransport};
use crate::config::problem::Problems;
use crate::config::raw::{RawIpfix, RawTransport};
use crate::config::shape::{Entry, Shaped};

pub(super) fn resolve(problems: &mut Problems<'_>, shaped: &mut Shaped) -> Vec<Ipfix> {
    let mut collectors = Vec::new();
    let mut known: HashMap<String, Place> = HashMap::new();
    for Entry { place, raw, wrong } in shaped.list::<RawIpfix>(problems, "ipfix") {
        let here = place.key("collector");
        if wrong.none_of(&["collector"]) && raw.collector.checked().is_none() {
            let found = problems.document.source(&here);
            let problem = problems.error(&here, "the collector's address or port is out of range");
            problem.found(found).allowed("a host name, IPv4 address or [IPv6 address], and a port from 1 to 65535");
        }
        let transport = match raw.transport {
            RawTransport::Udp => IpfixTransport::Udp,
            RawTransport::Tcp => IpfixTransport::Tcp,
        };
        let one = Ipfix {
            template_refresh: duration(problems, &place.key("template_refresh"), &raw.template_refresh),
            collector: raw.collector.0,
            transport,
            template_messages: raw.template_messages,
            mtu: raw.mtu,
            domain: raw.domain,
            queue: raw.queue,
            enterprise_number: raw.enterprise_number,
        };
        if let Some(first) = known.insert(one.to_string(), here.clone()) {
            let line = problems.document.line_of(&first);
            let problem = problems.error(&here, format!("collector `{one}` stands twice"));
            problem.found(format!("`{one}`")).allowed("each collector once").related(line, "first here");
        }
        collectors.push(one);
    }
    collectors
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse;

    #[test]
    fn defaults_and_all_keys() {
        let text = "[[ipfix]]\ncollector = \"10.0.0.5:4739\"\n[[ipfix]]\ncollector = \"[2001:db8::5]:4740\"\n\
                    transport = \"tcp\"\ntemplate_refresh = \"5m\"\ntemplate_messages = 7\nmtu = 9000\ndomain = 3\n\
                    queue = 100\nenterprise_number = 4242\n";
        let config = parse(text, "test.toml").unwrap();
        assert_eq!(config.ipfix[0], Ipfix::to("10.0.0.5:4739", IpfixTransport::Udp));
        let want = Ipfix {
            collector: "[2001:db8::5]:4740".to_owned(),
            transport: IpfixTransport::Tcp,
            template_refresh: Duration::from_secs(300),
            template_messages: 7,
            mtu: 9000,
            domain: 3,
            queue: 100,
            enterprise_number: 4242,
        };
        assert_eq!(config.ipfix[1], want);
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let error = |text: &str| parse(text, "test.toml").unwrap_err().to_string();
        let twice = "[[ipfix]]\ncollector = \"a:1\"\n[[ipfix]]\ncollector = \"a:1\"\n";
        assert!(error(twice).contains("stands twice"), "{}", error(twice));
        let port = error("[[ipfix]]\ncollector = \"a:70000\"\n");
        assert!(port.contains("1 to 65535"), "{port}");
        let transport = error("[[ipfix]]\ncollector = \"a:1\"\ntransport = \"sctp\"\n");
        assert!(transport.contains("`udp` or `tcp`"), "{transport}");
        assert!(error("[[ipfix]]\n").contains("`collector` is missing"));
    }
}
