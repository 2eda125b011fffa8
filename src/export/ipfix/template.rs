//! Templates: what tells a collector how to read the records.

use super::element::{self as ie, Element, OWN_REVERSE_BIT, REVERSE};
use super::record::{FIRST_TEMPLATE, SHAPES};
use super::wire::Put;

/// Set numbers of RFC 7011, 3.3.2.
pub const TEMPLATE_SET: u16 = 2;
pub const OPTIONS_TEMPLATE_SET: u16 = 3;

/// An options template; the first `scopes` elements say what its records are about.
#[derive(Clone, Copy, Debug)]
pub struct OptionsTemplate {
    pub id: u16,
    pub scopes: u16,
    pub elements: &'static [Element],
    /// For people.
    pub meaning: &'static str,
}

/// The type of one own element (RFC 5610).
pub const ELEMENT_TYPE: OptionsTemplate = OptionsTemplate {
    id: 272,
    scopes: 2,
    elements: &[
        ie::ENTERPRISE_NUMBER,
        ie::INFORMATION_ELEMENT_ID,
        ie::ELEMENT_DATA_TYPE,
        ie::ELEMENT_SEMANTICS,
        ie::ELEMENT_UNITS,
        ie::ELEMENT_NAME,
        ie::ELEMENT_DESCRIPTION,
    ],
    meaning: "type, unit, name and meaning of each own element (RFC 5610)",
};

/// Which fields of a template are the flow key (RFC 7011, 4.4).
pub const FLOW_KEYS: OptionsTemplate = OptionsTemplate {
    id: 273,
    scopes: 1,
    elements: &[ie::TEMPLATE_ID, ie::FLOW_KEY_INDICATOR],
    meaning: "which fields of a template tell one flow from another (RFC 7011, 4.4)",
};

/// The flows themselves are not sampled. Collectors that want a rate from every exporter find it here.
pub const SAMPLING: OptionsTemplate = OptionsTemplate {
    id: 274,
    scopes: 1,
    elements: &[
        ie::OBSERVATION_DOMAIN,
        ie::SELECTOR_ALGORITHM,
        ie::SAMPLING_PACKET_INTERVAL,
        ie::SAMPLING_PACKET_SPACE,
    ],
    meaning: "the flows are metered from all packets: 1 of 1",
};

pub const RULE: OptionsTemplate =
    OptionsTemplate { id: 275, scopes: 1, elements: &[ie::RULE, ie::RULE_NAME], meaning: "id of a rule" };

pub const GROUP_SET: OptionsTemplate = OptionsTemplate {
    id: 276,
    scopes: 1,
    elements: &[ie::GROUP_SET, ie::GROUP_NAMES],
    meaning: "names of the groups in a set",
};

pub const MIRROR_SET: OptionsTemplate = OptionsTemplate {
    id: 277,
    scopes: 1,
    elements: &[ie::MIRROR_SET, ie::MIRROR_NAMES],
    meaning: "names of the mirror sessions in a set",
};

/// Not the standard sampling elements: collectors multiply the counters of flows by those, and a mirror's rate says
/// nothing about them.
pub const MIRROR_SESSION: OptionsTemplate = OptionsTemplate {
    id: 278,
    scopes: 1,
    elements: &[ie::MIRROR_SESSION, ie::MIRROR_NAME, ie::MIRROR_INTERVAL, ie::MIRROR_PROBABILITY, ie::MIRROR_PRIORITY],
    meaning: "name, sampling rate and priority of a mirror session",
};

/// Metering Process Statistics (RFC 7011, 4.1).
pub const EXPORTED: OptionsTemplate = OptionsTemplate {
    id: 279,
    scopes: 1,
    elements: &[ie::OBSERVATION_DOMAIN, ie::EXPORTED_MESSAGES, ie::EXPORTED_RECORDS, ie::EXPORTED_OCTETS],
    meaning: "messages, flow records and octets sent to this collector since start (RFC 7011, 4.1)",
};

/// Exporting Process Reliability Statistics (RFC 7011, 4.3).
pub const NOT_SENT: OptionsTemplate = OptionsTemplate {
    id: 280,
    scopes: 1,
    elements: &[ie::EXPORTING_PROCESS, ie::NOT_SENT_FLOWS, ie::NOT_SENT_PACKETS, ie::NOT_SENT_OCTETS],
    meaning: "flow records that could not be sent to this collector since start, with their packets and octets \
              (RFC 7011, 4.3)",
};

/// All options templates.
pub const OPTIONS: [OptionsTemplate; 9] =
    [ELEMENT_TYPE, FLOW_KEYS, SAMPLING, RULE, GROUP_SET, MIRROR_SET, MIRROR_SESSION, EXPORTED, NOT_SENT];

/// All templates as template records, each with the set it belongs in.
pub fn all(enterprise: u32) -> Vec<(u16, Vec<u8>)> {
    let flows = SHAPES.iter().enumerate().map(|(at, shape)| {
        let columns: Vec<_> = shape.columns().collect();
        let mut bytes = Vec::new();
        bytes.put_u16(FIRST_TEMPLATE + at as u16);
        bytes.put_u16(columns.len() as u16);
        columns.iter().for_each(|column| put_field(&mut bytes, &column.element, column.reverse, enterprise));
        (TEMPLATE_SET, bytes)
    });
    let options = OPTIONS.iter().map(|template| {
        let mut bytes = Vec::new();
        bytes.put_u16(template.id);
        bytes.put_u16(template.elements.len() as u16);
        bytes.put_u16(template.scopes);
        template.elements.iter().for_each(|element| put_field(&mut bytes, element, false, enterprise));
        (OPTIONS_TEMPLATE_SET, bytes)
    });
    flows.chain(options).collect()
}

/// Number under which an own element stands in templates and type options, without the enterprise bit.
pub fn own_number(element: &Element, reverse: bool) -> u16 {
    if reverse { element.id | OWN_REVERSE_BIT } else { element.id }
}

/// A field specifier (RFC 7011, 3.2).
fn put_field(out: &mut Vec<u8>, element: &Element, reverse: bool, enterprise: u32) {
    const ENTERPRISE_BIT: u16 = 0x8000;
    let (id, number) = match (element.own, reverse) {
        (false, false) => (element.id, None),
        (false, true) => (element.id | ENTERPRISE_BIT, Some(REVERSE)),
        (true, _) => (own_number(element, reverse) | ENTERPRISE_BIT, Some(enterprise)),
    };
    out.put_u16(id);
    out.put_u16(element.kind.length());
    if let Some(number) = number {
        out.put_u32(number);
    }
}
