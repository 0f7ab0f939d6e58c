//! Tables for people.

use comfy_table::{Table, presets};
use owo_colors::{OwoColorize as _, Stream};

/// A table in the manner of kubectl: no lines, columns by spaces.
pub fn plain(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    // Columns keep their width whatever the terminal's: these lines are read and copied. The margin is that of the
    // header; the second line of a cell is further in.
    let lines: Vec<String> = table.lines().collect();
    let margin = lines.first().map_or(0, |header| {
        header.len() - header.trim_start_matches(' ').len()
    });
    lines
        .iter()
        .map(|line| line.get(margin..).unwrap_or_default().trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A heading of a section.
pub fn heading(text: &str) -> String {
    text.if_supports_color(Stream::Stdout, |t| t.bold())
        .to_string()
}

/// Seconds as kubectl shows ages.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..=10_799 => format!("{}m", seconds / 60),
        10_800..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_those_of_kubectl() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (900, "15m"),
            (126_000, "35h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_cell_of_two_lines_stays_in_its_column() {
        let row = ["a", "first\nsecond", "z"].map(str::to_owned).to_vec();
        let text = plain(&["X", "Y", "Z"], [row]);
        let column = |word: &str| text.lines().find_map(|line| line.find(word));
        assert_eq!(column("first"), column("second"), "{text}");
        assert_eq!(column("Y"), column("second"), "{text}");
    }

    #[test]
    fn rows_begin_at_the_margin() {
        let text = plain(&["A", "B"], [vec!["1".to_owned(), "22".to_owned()]]);
        assert!(
            text.lines()
                .all(|line| !line.starts_with(' ') && !line.ends_with(' ')),
            "{text}"
        );
    }
}
