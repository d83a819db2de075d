//! Dates in tables and names: recognised by their form, and moved by whole days.

use chrono::{Days, NaiveDate};

/// A date within a text: where its digits stand, and how they are joined.
struct Found {
    date: NaiveDate,
    /// Bytes of the text that are the date.
    length: usize,
    format: &'static str,
}

/// Whether a text is a date, or a date and a time: `2019-03-04`, `2019/03/04`, `20190304`, `04.03.2019`, each alone or
/// followed by a time as in `2019-03-04T10:11:12.5` or, as DICOM writes it, `20190304101112.5`.
pub fn is_date(text: &str) -> bool {
    find(text).is_some()
}

/// The text with its date moved back by so many days; none where it is no date. The time of day stays.
pub fn shifted(text: &str, days: u64) -> Option<String> {
    let found = find(text)?;
    let date = found.date.checked_sub_days(Days::new(days))?;
    Some(format!("{}{}", date.format(found.format), &text[found.length..]))
}

fn find(text: &str) -> Option<Found> {
    let forms = [
        (10, "%Y-%m-%d", "dddd-dd-dd"),
        (10, "%Y/%m/%d", "dddd/dd/dd"),
        (10, "%d.%m.%Y", "dd.dd.dddd"),
        (8, "%Y%m%d", "dddddddd"),
    ];
    forms.into_iter().find_map(|(length, format, shape)| {
        let (start, rest) = text.split_at_checked(length)?;
        let fits = start.bytes().zip(shape.bytes()).all(|(found, expected)| match expected {
            b'd' => found.is_ascii_digit(),
            separator => found == separator,
        });
        let date = NaiveDate::parse_from_str(start, format).ok().filter(|_| fits)?;
        let year = date.format("%Y").to_string().parse::<u32>().ok()?;
        ((1850..2200).contains(&year) && is_time(rest)).then_some(Found { date, length, format })
    })
}

/// Nothing, or a time of day.
fn is_time(text: &str) -> bool {
    let digits = text.strip_prefix(['T', ' ', 't']).unwrap_or(text);
    let marked = digits.len() < text.len();
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    text.is_empty()
        || ((marked || count >= 4)
            && count >= 2
            && digits.bytes().all(|b| b.is_ascii_digit() || b":.+-Z".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_move_by_whole_days_and_keep_their_form() {
        for (text, moved) in [
            ("2019-03-01", "2019-02-28"),
            ("2020-03-01T10:11:12.500", "2020-02-29T10:11:12.500"),
            ("2019/01/01 08:00", "2018/12/31 08:00"),
            ("20190301", "20190228"),
            ("20190301101112.5", "20190228101112.5"),
            ("01.03.2019", "28.02.2019"),
        ] {
            assert_eq!(shifted(text, 1).as_deref(), Some(moved));
        }
    }

    #[test]
    fn what_is_no_date_is_left_alone() {
        for text in [
            "",
            "7",
            "2019",
            "2019-13-01",
            "12345678",
            "99990101",
            "2019-03-01x",
            "ü019-03-01",
            "20190301 9",
        ] {
            assert!(!is_date(text), "{text}");
        }
    }
}
