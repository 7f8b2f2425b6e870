//! Valid packets for tests.

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// A valid packet, as plain values.
#[derive(Clone, Debug)]
pub struct Plain {
    /// MAC addresses, source first.
    pub macs: [[u8; 6]; 2],
    /// Addresses, source first.
    pub addresses: [[u8; 4]; 2],
    /// Ports, source first.
    pub ports: [u16; 2],
    /// TTL.
    pub ttl: u8,
    /// TOS.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// TCP: sequence, acknowledgement, window; UDP if there is none.
    pub tcp: Option<(u32, u32, u16)>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Plain {
    /// A datagram with this payload.
    pub fn udp(payload: Vec<u8>) -> Self {
        Self {
            macs: [[2; 6], [4; 6]],
            addresses: [[10, 0, 0, 1], [10, 0, 0, 2]],
            ports: [1, 2],
            ttl: 64,
            tos: 0,
            id: 1,
            df: true,
            tcp: None,
            payload,
        }
    }

    /// The frame, as etherparse makes it: an ACK with PSH if it is TCP.
    pub fn frame(&self) -> Vec<u8> {
        self.of(self.four())
    }

    /// Its link and IPv4 headers.
    pub fn four(&self) -> PacketBuilderStep<IpHeaders> {
        let mut ip = etherparse::Ipv4Header::new(
            0,
            self.ttl,
            etherparse::IpNumber(0),
            self.addresses[0],
            self.addresses[1],
        )
        .expect("short");
        ip.dscp = etherparse::IpDscp::try_new(self.tos >> 2).expect("six bits");
        ip.ecn = etherparse::IpEcn::try_new(self.tos & 3).expect("two bits");
        ip.identification = self.id;
        ip.dont_fragment = self.df;
        self.link(IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
    }

    /// An IPv6 address for each of IPv4's.
    pub fn address6(bytes: [u8; 4]) -> [u8; 16] {
        let [a, b, c, d] = bytes;
        [0xfd, a, b, c, d, 0, 1, !a, 0x80, b, 0, c, 0, d, a, d]
    }

    /// The same as a packet of IPv6: the identification is the flow label.
    pub fn frame6(&self) -> Vec<u8> {
        self.of(self.six())
    }

    /// Its link and IPv6 headers.
    pub fn six(&self) -> PacketBuilderStep<IpHeaders> {
        let [source, destination] = self.addresses.map(Self::address6);
        self.link(IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                traffic_class: self.tos,
                flow_label: u32::from(self.id).try_into().expect("twenty bits"),
                hop_limit: self.ttl,
                source,
                destination,
                ..etherparse::Ipv6Header::default()
            },
            etherparse::Ipv6Extensions::default(),
        ))
    }

    fn link(&self, ip: IpHeaders) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ethernet2(self.macs[0], self.macs[1]).ip(ip)
    }

    fn of(&self, builder: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.tcp {
            Some((sequence, acknowledgement, window)) => builder
                .tcp(self.ports[0], self.ports[1], sequence, window)
                .ack(acknowledgement)
                .psh()
                .write(&mut bytes, &self.payload),
            None => builder
                .udp(self.ports[0], self.ports[1])
                .write(&mut bytes, &self.payload),
        }
        .expect("a vector takes all");
        bytes
    }
}

/// Valid packets of all sorts.
pub fn plain() -> impl proptest::strategy::Strategy<Value = Plain> {
    use proptest::prelude::*;
    let link = (any::<[[u8; 6]; 2]>(), any::<[[u8; 4]; 2]>(), any::<[u16; 2]>());
    let ip = (any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>());
    let transport = (
        any::<Option<(u32, u32, u16)>>(),
        prop::collection::vec(any::<u8>(), 0..80),
    );
    (link, ip, transport).prop_map(|((macs, addresses, ports), (ttl, tos, id, df), (tcp, payload))| Plain {
        macs,
        addresses,
        ports,
        ttl,
        tos,
        id,
        df,
        tcp,
        payload,
    })
}
