//! Guesses at what was meant by a value in a form that other programs take.

/// For the field `name`, a value as written → how gnomon wants it.
pub(super) fn spelling(name: &str, written: &str) -> Option<String> {
    let bare = written.trim_matches(['"', '\'']).trim();
    let digits: String = bare.chars().take_while(char::is_ascii_digit).collect();
    let unit = bare[digits.len()..].trim().to_ascii_lowercase();
    let guess = match name {
        "device" if is_interface(bare) => format!("net_af_packet0,iface={bare}"),
        "memory" if !digits.is_empty() => format!("{digits}{}", size_unit(&unit)?),
        "tcp_opening" | "tcp_established" | "tcp_closed" | "udp" | "icmp" | "other" | "active" | "fragments"
        | "window"
            if !digits.is_empty() =>
        {
            format!("{digits}{}", time_unit(&unit)?)
        }
        "ports" | "from_ports" | "protocol" if !digits.is_empty() && unit.is_empty() => {
            return (written != bare).then_some(digits);
        }
        "ports" | "from_ports" => {
            let last = unit.trim_start_matches([':', '.', '-', ' ']);
            let is_port = !digits.is_empty() && !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
            is_port.then(|| format!("{digits}-{last}"))?
        }
        "sample" if !digits.is_empty() && unit.is_empty() => format!("1/{digits}"),
        "sample" if digits == "1" => format!("1/{}", unit.trim_start_matches([':', '/', ' '])),
        "flows" if !digits.is_empty() && unit.is_empty() => format!("{digits}%"),
        _ if written != bare && (bare.parse::<i64>().is_ok() || bare == "true" || bare == "false") => {
            return Some(bare.to_owned());
        }
        _ => return None,
    };
    (guess != bare).then(|| format!("\"{guess}\""))
}

fn is_interface(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.len() <= 15 && text.bytes().all(allowed)
}

fn size_unit(unit: &str) -> Option<&'static str> {
    match unit {
        "" | "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        _ => None,
    }
}

fn time_unit(unit: &str) -> Option<&'static str> {
    match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "ms" | "msec" | "millis" | "milliseconds" => Some("ms"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::spelling;

    #[test]
    fn other_programs_forms_are_understood() {
        let cases = [
            ("device", "\"eth1\"", Some("\"net_af_packet0,iface=eth1\"")),
            ("memory", "\"512MB\"", Some("\"512MiB\"")),
            ("memory", "1024", Some("\"1024MiB\"")),
            ("udp", "30", Some("\"30s\"")),
            ("udp", "\"5 minutes\"", Some("\"5m\"")),
            ("ports", "\"443\"", Some("443")),
            ("ports", "\"8000:8100\"", Some("\"8000-8100\"")),
            ("ports", "70000", None),
            ("sample", "100", Some("\"1/100\"")),
            ("flows", "10", Some("\"10%\"")),
            ("priority", "\"10\"", Some("10")),
            ("comment", "5", None),
            ("memory", "\"lots\"", None),
        ];
        for (name, written, wanted) in cases {
            assert_eq!(spelling(name, written).as_deref(), wanted, "{name} = {written}");
        }
    }
}
