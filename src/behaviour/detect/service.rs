//! What ports are for, as far as detectors care.

/// Remote administration, file sharing and databases: a host has few peers there, and knows them.
pub(crate) fn is_administration(port: u16) -> bool {
    matches!(
        port,
        22 | 23 | 135 | 139 | 445 | 512..=514 | 1433 | 1521 | 2222 | 2323 | 3306 | 3389 | 5432 | 5555 | 5900..=5903
            | 5985 | 5986 | 6379 | 9200 | 11211 | 27017
    )
}

/// Services that one logs in to, where a session is work and not a request. Of the ports below 1024 all that are not
/// made for many short connections (web, names, mail, directories, printing, time, file sharing).
pub(crate) fn is_login(port: u16) -> bool {
    match port {
        20 | 25 | 37 | 43 | 53 | 67..=70 | 79..=82 | 88 | 109..=111 | 113 | 119 | 123 | 135..=139 | 143 | 161 | 162 => {
            false
        }
        179 | 264 | 389 | 427 | 443..=445 | 464 | 465 | 500 | 515 | 520 | 540 | 546..=548 | 554 | 563 | 587 | 593 => {
            false
        }
        601 | 623 | 631 | 636 | 646 | 749 | 750 | 853 | 873 | 880 | 991..=995 => false,
        1..1024 => true,
        _ => matches!(port, 1433 | 1521 | 2222 | 3306 | 3389 | 5432 | 5900..=5903 | 5985 | 5986),
    }
}

pub(crate) fn is_web(port: u16) -> bool {
    matches!(port, 80..=82 | 443 | 591 | 3000 | 5000 | 8000..=8010 | 8080..=8090 | 8443 | 8880 | 8888 | 9000 | 9443)
}

/// UDP services whose answers can be far larger than the questions (CISA alert TA14-017A, and those found since).
pub(crate) fn is_amplifier(port: u16) -> bool {
    matches!(
        port,
        7 | 17
            | 19
            | 53
            | 69
            | 111
            | 123
            | 137
            | 161
            | 177
            | 389
            | 427
            | 520
            | 623
            | 1194
            | 1434
            | 1604
            | 1900
            | 3283
            | 3478
            | 3702
            | 5093
            | 5353
            | 5683
            | 6881
            | 10001
            | 11211
            | 20800
            | 27015
            | 27960
            | 37810
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_connections_are_no_logins() {
        assert!([21, 22, 23, 902, 3389, 5900].into_iter().all(is_login));
        assert!(![0, 25, 53, 80, 88, 135, 389, 443, 445, 636, 993, 8080, 40_000].into_iter().any(is_login));
    }
}
