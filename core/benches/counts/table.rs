//! The counts that are kept in docs/BENCHMARKS.md, and what a run's are beside them.

use std::fmt::Write as _;

use super::report::number;

/// What a path may take more than is kept, in per cent.
pub const GIVE: u64 = 10;

const BEGIN: &str = "<!-- counts -->\n";
const END: &str = "<!-- end -->";
const MADE: &str = "Counted with ";

/// Instructions an operation, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What decides about them besides the sources.
    pub made: String,
    pub rows: Vec<(String, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Holds,
    /// A path takes too much more, or has no kept figure.
    Fails,
    /// Nothing was counted, or nothing that can be compared.
    None,
}

impl Table {
    /// From the page that it is kept in.
    pub fn read(page: &str) -> Table {
        let lines = || page[inside(page)].lines();
        let made = lines().find_map(|line| line.strip_prefix(MADE)?.strip_suffix('.')).unwrap_or_default();
        let row = |line: &str| {
            let (what, count) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
            Some((what.to_owned(), count.replace(',', "").parse().ok()?))
        };
        Table { made: made.to_owned(), rows: lines().filter_map(row).collect() }
    }

    /// The page with this table in it.
    pub fn put_into(&self, page: &str) -> String {
        let mut text = format!("{MADE}{}.\n\n| an operation | instructions |\n|---|---:|\n", self.made);
        for (what, count) in &self.rows {
            writeln!(text, "| {what} | {} |", number(*count as f64)).expect("writing into a string");
        }
        let mut page = page.to_owned();
        page.replace_range(inside(&page), &text);
        page
    }

    /// A line for each path, and what is to be thought of it all.
    pub fn beside(&self, kept: &Table) -> (String, Answer) {
        let is_alike = self.made == kept.made;
        let (mut text, mut failures) = (String::new(), 0);
        let mut line = |what: &str, now: &str, verdict: &str| {
            writeln!(text, "{what:<62} {now:>8}  {verdict}").expect("writing into a string");
        };
        for (what, now) in &self.rows {
            let before = kept.rows.iter().find(|(kept, _)| kept == what).map(|(_, count)| *count);
            let (verdict, fails) = match before {
                None => ("NEW".to_owned(), true),
                Some(before) if *now * 100 > before * (100 + GIVE) => (change(before, *now) + ": MORE", true),
                Some(before) => (change(before, *now), false),
            };
            failures += u32::from(fails);
            line(what, &number(*now as f64), &verdict);
        }
        for (what, _) in kept.rows.iter().filter(|(kept, _)| !self.rows.iter().any(|(what, _)| what == kept)) {
            failures += 1;
            line(what, "–", "NO LONGER COUNTED");
        }
        if !is_alike {
            let (kept, here) = (&kept.made, &self.made);
            write!(text, "{}", not_alike(kept, here)).expect("writing into a string");
            return (text, Answer::None);
        }
        let answer = if failures == 0 { Answer::Holds } else { Answer::Fails };
        let verdict = match answer {
            Answer::Fails => format!("{failures} failed; BRUIT_UPDATE=1 accepts these counts"),
            _ => format!("none takes more than {GIVE} % more than docs/BENCHMARKS.md has"),
        };
        writeln!(text, "\n{verdict}").expect("writing into a string");
        (text, answer)
    }
}

fn change(before: u64, now: u64) -> String {
    match now as i64 - before as i64 {
        0 => "as kept".to_owned(),
        more => format!("kept {}: {:+.1} %", number(before as f64), more as f64 * 100.0 / before as f64),
    }
}

fn not_alike(kept: &str, here: &str) -> String {
    format!(
        "\nNOT COMPARED. The kept counts were made with\n    {kept}\nand these with\n    {here}\n\
         which alone makes counts differ: nothing above is a failure, and nothing has passed. To check a change here:\n    \
         without it: BRUIT_UPDATE=1 make counts\n    \
         with it:    make counts; git checkout docs/BENCHMARKS.md\n"
    )
}

/// Between the two marks.
fn inside(page: &str) -> std::ops::Range<usize> {
    let begin = page.find(BEGIN).expect("the page has the table's mark") + BEGIN.len();
    let len = page[begin..].find(END).expect("and a mark at its end");
    begin..begin + len
}
