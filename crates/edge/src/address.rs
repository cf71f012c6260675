//! Whose request it is: the client's address, scheme and host, also behind proxies.
//!
//! What a proxy says about the client counts only if the proxy is one of ours. The list of addresses in
//! `X-Forwarded-For` is read from its end, where our nearest proxy wrote, and only as far as each address that
//! passes the request on is trusted: what stands before may be the client's own invention.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// An entry of `edge.trusted_proxies` that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as \"10.0.0.1\" or a network such as \"10.0.0.0/8\", got {0:?}")]
pub(crate) struct BadProxy(String);

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client, as far as trusted proxies tell.
    pub(crate) address: IpAddr,
    /// The client speaks TLS, with us or with a trusted proxy.
    pub(crate) secure: bool,
    /// The host that the client asked for, with its port if it is not the default one.
    pub(crate) host: Option<String>,
}

/// The addresses whose word about a client counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    networks: Vec<Network>,
}

impl Proxies {
    /// Reads addresses and networks.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, BadProxy> {
        let networks = entries.iter().map(|entry| {
            let entry = entry.as_ref().trim();
            Network::parse(entry).ok_or_else(|| BadProxy(entry.to_owned()))
        });
        Ok(Self {
            networks: networks.collect::<Result<_, _>>()?,
        })
    }

    /// Tells whether an address is one of ours.
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Finds out who sent a request that came in from `socket`.
    pub(crate) fn resolve(&self, socket: IpAddr, tls: bool, headers: &HeaderMap) -> Peer {
        let socket = socket.to_canonical();
        let trusted = self.trust(socket);
        let told = |name| trusted.then(|| first(headers, &name)).flatten();
        Peer {
            address: self.client(socket, headers),
            secure: match told(FORWARDED_PROTO) {
                Some(scheme) => scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss"),
                None => tls,
            },
            host: told(FORWARDED_HOST)
                .or_else(|| headers.get(HOST)?.to_str().ok())
                .map(str::to_owned),
        }
    }

    fn client(&self, socket: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = socket;
        let values = headers.get_all(FORWARDED_FOR);
        let entries = values
            .iter()
            .rev()
            .flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
        for entry in entries {
            if !self.trust(client) {
                break;
            }
            let Some(address) = forwarded(entry) else { break };
            client = address;
        }
        client
    }
}

/// An address of `X-Forwarded-For`; some proxies add the port.
fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = entry
        .strip_prefix('[')
        .and_then(|entry| entry.strip_suffix(']'))
        .unwrap_or(entry);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The first of the values that proxies chained: what the one nearest to the client said.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    let value = value.split(',').next().unwrap_or_default().trim();
    (!value.is_empty()).then_some(value)
}

/// Addresses with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(entry: &str) -> Option<Self> {
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse::<u32>().ok()?))
            }
            Some(_) => return None,
            None => (entry, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let width = |address| match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.unwrap_or(width(written));
        if bits > width(written) {
            return None;
        }
        // A mapped network such as ::ffff:10.0.0.0/104 is the one of version 4 that it maps.
        let address = written.to_canonical();
        let narrower = width(written) - width(address);
        match bits.checked_sub(narrower) {
            Some(bits) => Some(Self { address, bits }),
            None => Some(Self {
                address: written,
                bits,
            }),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        let same = |left: u128, right: u128, width: u32| {
            self.bits == 0 || (left ^ right) >> (width - self.bits.min(width)) == 0
        };
        match (self.address, address) {
            (IpAddr::V4(left), IpAddr::V4(right)) => same(left.to_bits().into(), right.to_bits().into(), 32),
            (IpAddr::V6(left), IpAddr::V6(right)) => same(left.to_bits(), right.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(entries: &[&str]) -> Proxies {
        Proxies::parse(entries).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_what_shares_their_prefix() {
        for (network, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.9.9.9/8", "10.0.0.1", "9.255.255.255"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("0.0.0.0/0", "203.0.113.1", "::2"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.3.2.1", "11.3.2.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
        ] {
            let proxies = proxies(&[network]);
            assert!(proxies.trust(address(inside)), "{network} has {inside}");
            assert!(!proxies.trust(address(outside)), "{network} has not {outside}");
        }
    }

    #[test]
    fn an_entry_that_is_no_network_is_named() {
        for entry in [
            "",
            "proxy",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "1/2/3",
        ] {
            let error = Proxies::parse(&["127.0.0.1", entry]).unwrap_err();
            assert!(error.to_string().ends_with(&format!("got {entry:?}")), "{error}");
        }
        assert_eq!(proxies(&[" 127.0.0.1 "]), proxies(&["127.0.0.1"]));
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_ours() {
        let ours = proxies(&["10.0.0.0/8", "fd00::/8"]);
        for (socket, forwarded, client) in [
            // Nobody asked, and nobody of ours.
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("198.51.100.9", vec!["1.2.3.4"], "198.51.100.9"),
            ("10.0.0.1", vec!["1.2.3.4"], "1.2.3.4"),
            // What the client wrote itself stands to the left.
            ("10.0.0.1", vec!["127.0.0.1, 10.0.0.9, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", vec!["9.9.9.9, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", vec!["9.9.9.9", "1.2.3.4,10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", vec!["1.2.3.4", "10.0.0.3", " 10.0.0.2 "], "1.2.3.4"),
            // All are ours: the furthest.
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Malformed entries end the walk.
            ("10.0.0.1", vec!["1.2.3.4, unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["1.2.3.4,, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", vec![""], "10.0.0.1"),
            // Ports and brackets.
            ("10.0.0.1", vec!["1.2.3.4:5678"], "1.2.3.4"),
            ("fd00::1", vec!["[2001:db8::7]:443"], "2001:db8::7"),
            ("fd00::1", vec!["[2001:db8::7]"], "2001:db8::7"),
            ("::ffff:10.0.0.1", vec!["::ffff:1.2.3.4"], "1.2.3.4"),
        ] {
            let mut map = HeaderMap::new();
            for value in &forwarded {
                map.append("x-forwarded-for", HeaderValue::from_str(value).unwrap());
            }
            let peer = ours.resolve(address(socket), false, &map);
            assert_eq!(peer.address, address(client), "{socket} {forwarded:?}");
        }
    }

    #[test]
    fn scheme_and_host_come_from_our_proxies_only() {
        let told = headers(&[
            ("host", "edge.internal:7000"),
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "app.example.com, edge.internal"),
        ]);
        let ours = proxies(&["10.0.0.1"]);
        let peer = ours.resolve(address("10.0.0.1"), false, &told);
        assert_eq!(
            (peer.secure, peer.host.as_deref()),
            (true, Some("app.example.com"))
        );
        let peer = ours.resolve(address("10.0.0.2"), false, &told);
        assert_eq!(
            (peer.secure, peer.host.as_deref()),
            (false, Some("edge.internal:7000"))
        );
        let plain = headers(&[
            ("host", "app"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", ""),
        ]);
        let peer = ours.resolve(address("10.0.0.1"), true, &plain);
        assert_eq!((peer.secure, peer.host.as_deref()), (false, Some("app")));
        assert!(ours.resolve(address("10.0.0.2"), true, &plain).secure);
        assert_eq!(
            ours.resolve(address("10.0.0.2"), true, &HeaderMap::new()).host,
            None
        );
    }

    proptest! {
        #[test]
        fn an_untrusted_socket_is_always_the_client(socket: IpAddr, value in "[ -~]{0,60}") {
            let peer = proxies(&[]).resolve(socket, false, &headers(&[("x-forwarded-for", &value)]));
            prop_assert_eq!(peer.address, socket.to_canonical());
        }

        #[test]
        fn a_client_cannot_choose_its_address(invented in "[0-9a-f:., ]{0,40}", client: IpAddr) {
            let proxy = address("192.0.2.1");
            prop_assume!(client.to_canonical() != proxy);
            let value = format!("{invented},{client}");
            let peer = proxies(&["192.0.2.1"]).resolve(proxy, false, &headers(&[("x-forwarded-for", &value)]));
            prop_assert_eq!(peer.address, client.to_canonical());
        }

        #[test]
        fn any_prefix_of_an_address_holds_it(address: IpAddr, bits in 0_u32..=128) {
            let address = address.to_canonical();
            let bits = if address.is_ipv4() { bits.min(32) } else { bits };
            let network = Proxies::parse(&[format!("{address}/{bits}")]).unwrap();
            prop_assert!(network.trust(address));
        }

        #[test]
        fn no_entry_panics(entry in "\\PC{0,30}", address: IpAddr) {
            if let Ok(proxies) = Proxies::parse(&[entry]) {
                proxies.trust(address);
            }
        }
    }
}
