//! Sizes and times on the command line.

use std::time::Duration;

/// `100M`, `64k`, `4Ki`, `1.5G`, `5000`: bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let unit = |name: &str| {
        Some(match name {
            "" | "B" => 1.0,
            "k" | "K" | "kB" | "KB" => 1e3,
            "M" | "MB" => 1e6,
            "G" | "GB" => 1e9,
            "Ki" | "KiB" => 1024.0,
            "Mi" | "MiB" => 1024.0 * 1024.0,
            "Gi" | "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        })
    };
    let number = measured(text, unit).ok_or_else(|| format!("`{text}` is not a size such as 100M, 64Ki or 5000"))?;
    Ok(number as u64)
}

/// `60s`, `250ms`, `10m`, `1.5h`; a number alone is seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let unit = |name: &str| {
        Some(match name {
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        })
    };
    let seconds = measured(text, unit).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("`{text}` is not a time such as 60s, 250ms, 10m or 1.5h"))
}

/// A number with a unit, above zero.
fn measured(text: &str, unit: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    Some(number * unit(text[digits..].trim())?).filter(|number| *number > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_nonsense_is_not() {
        assert_eq!(
            ["100M", "64Ki", "5000", "1.5G"].map(bytes),
            [Ok(100_000_000), Ok(65_536), Ok(5000), Ok(1_500_000_000)]
        );
        let of = |text| time(text).map(|time| time.as_millis());
        assert_eq!(["60s", "250ms", "10m", "2"].map(of), [Ok(60_000), Ok(250), Ok(600_000), Ok(2_000)]);
        for bad in ["", "M", "1X", "-5", "0", "1..2", "ten"] {
            assert!(bytes(bad).is_err() && time(bad).is_err(), "{bad}");
        }
    }
}
