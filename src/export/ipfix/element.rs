//! Information elements: the standard ones that are used, and gnomon's own.
//!
//! Numbers, names and types of the standard ones are those of the IANA registry "IPFIX Information Elements"; data
//! types, semantics and units have the numbers of RFC 5610, under which the own ones describe themselves to collectors.

/// The enterprise number that stands for "the same element, for the packets of the other direction" (RFC 5103, 6.1).
pub const REVERSE: u32 = 29305;

/// Bit of an own element's number that says the same (RFC 5103, 6.2).
pub const OWN_REVERSE_BIT: u16 = 0x4000;

/// Abstract data types, by their number in RFC 5610.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    Unsigned8 = 1,
    Unsigned16 = 2,
    Unsigned32 = 3,
    Unsigned64 = 4,
    Float32 = 9,
    Float64 = 10,
    String = 13,
    Milliseconds = 15,
    Nanoseconds = 17,
    Ipv4 = 18,
    Ipv6 = 19,
}

/// Field length that stands for "as long as its own first bytes say".
pub const VARIABLE: u16 = 0xffff;

impl DataType {
    /// Bytes in a record.
    pub const fn length(self) -> u16 {
        match self {
            DataType::Unsigned8 => 1,
            DataType::Unsigned16 => 2,
            DataType::Unsigned32 | DataType::Float32 | DataType::Ipv4 => 4,
            DataType::Unsigned64 | DataType::Float64 | DataType::Milliseconds | DataType::Nanoseconds => 8,
            DataType::Ipv6 => 16,
            DataType::String => VARIABLE,
        }
    }

    /// As RFC 7012 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Unsigned8 => "unsigned8",
            DataType::Unsigned16 => "unsigned16",
            DataType::Unsigned32 => "unsigned32",
            DataType::Unsigned64 => "unsigned64",
            DataType::Float32 => "float32",
            DataType::Float64 => "float64",
            DataType::String => "string",
            DataType::Milliseconds => "dateTimeMilliseconds",
            DataType::Nanoseconds => "dateTimeNanoseconds",
            DataType::Ipv4 => "ipv4Address",
            DataType::Ipv6 => "ipv6Address",
        }
    }
}

/// What sort of number it is, by its number in RFC 5610.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantics {
    Default = 0,
    Quantity = 1,
    DeltaCounter = 3,
    Identifier = 4,
    Flags = 5,
}

/// Unit, by its number in RFC 5610.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None = 0,
    Octets = 2,
    Packets = 3,
    Nanoseconds = 8,
}

impl Unit {
    pub const fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Octets => "octets",
            Unit::Packets => "packets",
            Unit::Nanoseconds => "ns",
        }
    }
}

/// One information element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    pub id: u16,
    /// Under gnomon's enterprise number, not IANA's.
    pub own: bool,
    pub name: &'static str,
    pub kind: DataType,
    pub semantics: Semantics,
    pub unit: Unit,
    /// For people; empty for standard ones, which the registry describes.
    pub meaning: &'static str,
}

macro_rules! standard_elements {
    ($($constant:ident = $id:literal $name:literal $kind:ident;)*) => {
        $(pub const $constant: Element = Element {
            id: $id, own: false, name: $name, kind: DataType::$kind,
            semantics: Semantics::Default, unit: Unit::None, meaning: "",
        };)*
        /// All standard elements that are used.
        #[cfg(test)]
        pub(super) const STANDARD: &[Element] = &[$($constant),*];
    };
}

macro_rules! own_elements {
    ($($constant:ident = $id:literal $name:literal $kind:ident $semantics:ident $unit:ident $meaning:literal;)*) => {
        $(pub const $constant: Element = Element {
            id: $id, own: true, name: $name, kind: DataType::$kind,
            semantics: Semantics::$semantics, unit: Unit::$unit, meaning: $meaning,
        };)*
        /// All own elements.
        pub const OWN: &[Element] = &[$($constant),*];
    };
}

standard_elements! {
    OCTET_DELTA_COUNT = 1 "octetDeltaCount" Unsigned64;
    PACKET_DELTA_COUNT = 2 "packetDeltaCount" Unsigned64;
    PROTOCOL = 4 "protocolIdentifier" Unsigned8;
    TCP_CONTROL_BITS = 6 "tcpControlBits" Unsigned16;
    SOURCE_PORT = 7 "sourceTransportPort" Unsigned16;
    SOURCE_IPV4 = 8 "sourceIPv4Address" Ipv4;
    DESTINATION_PORT = 11 "destinationTransportPort" Unsigned16;
    DESTINATION_IPV4 = 12 "destinationIPv4Address" Ipv4;
    SOURCE_IPV6 = 27 "sourceIPv6Address" Ipv6;
    DESTINATION_IPV6 = 28 "destinationIPv6Address" Ipv6;
    ICMP_TYPE_CODE_IPV4 = 32 "icmpTypeCodeIPv4" Unsigned16;
    EXPORTED_OCTETS = 40 "exportedOctetTotalCount" Unsigned64;
    EXPORTED_MESSAGES = 41 "exportedMessageTotalCount" Unsigned64;
    EXPORTED_RECORDS = 42 "exportedFlowRecordTotalCount" Unsigned64;
    VLAN_ID = 58 "vlanId" Unsigned16;
    IP_VERSION = 60 "ipVersion" Unsigned8;
    FORWARDING_STATUS = 89 "forwardingStatus" Unsigned8;
    FLOW_END_REASON = 136 "flowEndReason" Unsigned8;
    ICMP_TYPE_CODE_IPV6 = 139 "icmpTypeCodeIPv6" Unsigned16;
    EXPORTING_PROCESS = 144 "exportingProcessId" Unsigned32;
    TEMPLATE_ID = 145 "templateId" Unsigned16;
    FLOW_ID = 148 "flowId" Unsigned64;
    OBSERVATION_DOMAIN = 149 "observationDomainId" Unsigned32;
    FLOW_START_MILLISECONDS = 152 "flowStartMilliseconds" Milliseconds;
    FLOW_END_MILLISECONDS = 153 "flowEndMilliseconds" Milliseconds;
    FLOW_START_NANOSECONDS = 156 "flowStartNanoseconds" Nanoseconds;
    FLOW_END_NANOSECONDS = 157 "flowEndNanoseconds" Nanoseconds;
    NOT_SENT_FLOWS = 166 "notSentFlowTotalCount" Unsigned64;
    NOT_SENT_PACKETS = 167 "notSentPacketTotalCount" Unsigned64;
    NOT_SENT_OCTETS = 168 "notSentOctetTotalCount" Unsigned64;
    FLOW_KEY_INDICATOR = 173 "flowKeyIndicator" Unsigned64;
    BIFLOW_DIRECTION = 239 "biflowDirection" Unsigned8;
    INFORMATION_ELEMENT_ID = 303 "informationElementId" Unsigned16;
    SELECTOR_ALGORITHM = 304 "selectorAlgorithm" Unsigned16;
    SAMPLING_PACKET_INTERVAL = 305 "samplingPacketInterval" Unsigned32;
    SAMPLING_PACKET_SPACE = 306 "samplingPacketSpace" Unsigned32;
    OBSERVATION_TIME_NANOSECONDS = 325 "observationTimeNanoseconds" Nanoseconds;
    ELEMENT_DATA_TYPE = 339 "informationElementDataType" Unsigned8;
    ELEMENT_DESCRIPTION = 340 "informationElementDescription" String;
    ELEMENT_NAME = 341 "informationElementName" String;
    ELEMENT_SEMANTICS = 344 "informationElementSemantics" Unsigned8;
    ELEMENT_UNITS = 345 "informationElementUnits" Unsigned16;
    ENTERPRISE_NUMBER = 346 "privateEnterpriseNumber" Unsigned32;
    LAYER2_OCTET_DELTA_COUNT = 352 "layer2OctetDeltaCount" Unsigned64;
    TRANSPORT_OCTET_DELTA_COUNT = 401 "transportOctetDeltaCount" Unsigned64;
    MINIMUM_LAYER2_LENGTH = 422 "minimumLayer2TotalLength" Unsigned64;
    MAXIMUM_LAYER2_LENGTH = 423 "maximumLayer2TotalLength" Unsigned64;
}

own_elements! {
    RULE = 1 "ruleHandle" Unsigned32 Identifier None
        "Rule that decided; its name is in the options. 0: no rule, the default did";
    RULE_NAME = 2 "ruleName" String Default None
        "Id of the rule in the configuration";
    RULE_TIER = 3 "ruleTier" Unsigned8 Identifier None
        "0 override, 1 threat, 2 policy, 3 learned, 4 default";
    VERDICT = 4 "verdict" Unsigned8 Identifier None
        "0 allowed, 1 denied, 2 rejected";
    GENERATION = 5 "policyGeneration" Unsigned32 Identifier None
        "Number of the compiled policy that decided";
    SOURCE_GROUPS = 6 "sourceGroupSet" Unsigned32 Identifier None
        "Groups of the initiator; their names are in the options. 0: none";
    DESTINATION_GROUPS = 7 "destinationGroupSet" Unsigned32 Identifier None
        "Groups of the responder; their names are in the options. 0: none";
    GROUP_SET = 8 "groupSet" Unsigned32 Identifier None
        "Options: a number that stands in sourceGroupSet or destinationGroupSet";
    GROUP_NAMES = 9 "groupNames" String Default None
        "Options: names of the groups, sorted, with commas between";
    MIRROR_SET = 10 "mirrorSet" Unsigned32 Identifier None
        "Mirror sessions that copied packets of the flow; their names are in the options. 0: none";
    MIRROR_NAMES = 11 "mirrorNames" String Default None
        "Options: names of mirror sessions, with commas between";
    MIRROR_SESSION = 12 "mirrorSession" Unsigned32 Identifier None
        "Options: number of a mirror session, from 1";
    MIRROR_NAME = 13 "mirrorName" String Default None
        "Options: name of the mirror session in the configuration";
    MIRROR_INTERVAL = 14 "mirrorPacketInterval" Unsigned32 Quantity Packets
        "Options: of so many packets one is copied; 0 when whole flows are picked";
    MIRROR_PROBABILITY = 15 "mirrorFlowProbability" Float64 Quantity None
        "Options: share of flows that are copied whole, 0 to 1; 1 when packets are picked";
    MIRROR_PRIORITY = 16 "mirrorPriority" Unsigned32 Identifier None
        "Options: lowest first when not all copies can be sent";
    SCORE = 17 "anomalyScore" Float32 Quantity None
        "How unusual the flow is, 0 to 1; not a number before the scorer is trained";
    SCORE_FLAGS = 18 "anomalyFlags" Unsigned32 Flags None
        "What the flow was part of, see the table of bits";
    FLOW_STATE = 19 "flowState" Unsigned8 Identifier None
        "0 new, 1 established, 2 closing, 3 closed";
    END_REASON = 20 "endReason" Unsigned8 Identifier None
        "As flowEndReason, finer: 0 idle, 1 active, 2 fin, 3 rst, 4 evicted, 5 forced";
    TUNNEL_NETWORK = 21 "tunnelNetworkId" Unsigned32 Identifier None
        "Network id (VXLAN, GENEVE) or tunnel endpoint id (GTP-U) of the enclosing tunnel; 0: none";
    HANDSHAKE_TIME = 22 "handshakeRoundTripTime" Unsigned64 Quantity Nanoseconds
        "From the SYN to the ACK that completed the handshake; all bits one: not seen";
    RETRANSMISSIONS = 23 "retransmittedSegments" Unsigned32 DeltaCounter Packets
        "TCP segments that carried bytes seen before";
    OUT_OF_WINDOW = 24 "outOfWindowSegments" Unsigned32 DeltaCounter Packets
        "TCP segments outside of the receiver's window";
    ENTROPY = 25 "payloadEntropy" Float32 Quantity None
        "Shannon entropy of the first payload bytes, bits per byte; not a number without payload";
    SIZE_MEAN = 26 "layer2LengthMean" Float64 Quantity Octets
        "Mean of the frame lengths, both directions";
    SIZE_DEVIATION = 27 "layer2LengthDeviation" Float64 Quantity Octets
        "Standard deviation of the frame lengths, both directions";
    GAP_MINIMUM = 28 "interArrivalMinimum" Unsigned64 Quantity Nanoseconds
        "Least time from a packet of the flow to the next, either direction; 0 below two packets";
    GAP_MAXIMUM = 29 "interArrivalMaximum" Unsigned64 Quantity Nanoseconds
        "Greatest time from a packet of the flow to the next";
    GAP_MEAN = 30 "interArrivalMean" Float64 Quantity Nanoseconds
        "Mean time from a packet of the flow to the next";
    GAP_DEVIATION = 31 "interArrivalDeviation" Float64 Quantity Nanoseconds
        "Standard deviation of the time from a packet of the flow to the next";
    WORKER = 32 "workerId" Unsigned16 Identifier None
        "The worker that saw the flow";
    RECORD_SEQUENCE = 33 "recordSequence" Unsigned64 Identifier None
        "Number of the record among all that the worker made, from 0; a gap is what was lost inside of gnomon";
    COMMUNITY_ID = 34 "communityId" String Default None
        "Community ID, version 1, seed 0";
    ICMP_ERRORS = 35 "icmpErrors" Unsigned32 DeltaCounter Packets
        "ICMP errors about packets of the flow; they are packets of flows of their own";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_given_once() {
        for table in [STANDARD, OWN] {
            assert!(table.windows(2).all(|pair| pair[0].id < pair[1].id), "sorted, so that twice is seen");
            for element in table {
                assert_eq!(table.iter().filter(|other| other.name == element.name).count(), 1, "{}", element.name);
                assert!(element.id & (0x8000 | OWN_REVERSE_BIT) == 0, "{}", element.name);
            }
        }
        assert!(OWN.iter().all(|element| element.own && !element.meaning.is_empty()));
    }
}
