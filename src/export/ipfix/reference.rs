//! The tables of `docs/ipfix.md`, from those that the encoder works with.

use std::fmt::Write;

use super::element::{Element, OWN, REVERSE};
use super::options::name_of;
use super::record::{COLUMNS, FIRST_TEMPLATE, Layer, SHAPES};
use super::template::{OPTIONS, own_number};
use crate::behaviour::AlertKind;

/// Templates, own elements and flag bits as Markdown.
pub fn ipfix_reference() -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = templates(&mut text).and_then(|()| own_elements(&mut text)).and_then(|()| flags(&mut text));
    text
}

fn templates(out: &mut String) -> std::fmt::Result {
    writeln!(out, "### Flow templates\n\n| template | IP | for |\n| --- | --- | --- |")?;
    for (at, shape) in SHAPES.iter().enumerate() {
        let layer = match shape.layer {
            Layer::Tcp => "TCP",
            Layer::Ports => "UDP, SCTP",
            Layer::Icmp => "ICMP, ICMPv6",
            Layer::Other => "all other protocols",
        };
        writeln!(out, "| {} | IPv{} | {layer} |", usize::from(FIRST_TEMPLATE) + at, shape.version)?;
    }
    writeln!(
        out,
        "\nFields, in this order:\n\n| element | number | bytes | in templates |\n| --- | --- | --- | --- |"
    )?;
    for column in COLUMNS {
        let has = |(at, shape): (usize, &super::record::Shape)| {
            let same = |c: &super::record::Column| c.element == column.element && c.reverse == column.reverse;
            shape.columns().any(same).then(|| (usize::from(FIRST_TEMPLATE) + at).to_string())
        };
        let found: Vec<String> = SHAPES.iter().enumerate().filter_map(has).collect();
        let found = if found.len() == SHAPES.len() { "all".to_owned() } else { found.join(", ") };
        let (name, length) = (name_of(column.element.name, column.reverse), column.element.kind.length());
        let length = if length == u16::MAX { "variable".to_owned() } else { length.to_string() };
        writeln!(out, "| {name} | {} | {length} | {found} |", number(&column.element, column.reverse))?;
    }
    writeln!(out, "\n### Options templates\n\n| template | scope | fields | what |\n| --- | --- | --- | --- |")?;
    for template in OPTIONS {
        let (scope, fields) = template.elements.split_at(usize::from(template.scopes));
        let list = |elements: &[Element]| elements.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
        writeln!(out, "| {} | {} | {} | {} |", template.id, list(scope), list(fields), template.meaning)?;
    }
    Ok(())
}

fn number(element: &Element, reverse: bool) -> String {
    match (element.own, reverse) {
        (false, false) => element.id.to_string(),
        (false, true) => format!("{REVERSE}/{}", element.id),
        (true, _) => format!("own/{}", own_number(element, reverse)),
    }
}

fn own_elements(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n### Own elements\n\n| number | reverse | name | type | unit | meaning |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for element in OWN {
        let reversed = COLUMNS.iter().any(|column| column.reverse && column.element == *element);
        let reverse = if reversed { own_number(element, true).to_string() } else { String::new() };
        let (kind, unit) = (element.kind.name(), element.unit.name());
        writeln!(out, "| {} | {reverse} | {} | {kind} | {unit} | {} |", element.id, element.name, element.meaning)?;
    }
    Ok(())
}

fn flags(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n### Bits of anomalyFlags\n\n| bit | value | name |\n| --- | --- | --- |")?;
    for kind in AlertKind::ALL {
        writeln!(out, "| {} | {} | {} |", kind as u8, 1u32 << kind as u8, kind.name())?;
    }
    Ok(())
}
