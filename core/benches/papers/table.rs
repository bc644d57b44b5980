//! How results are written down, judged, and compared with those that were accepted last.
//!
//! A row fails where the paper's own algorithm does not come out as the paper says (then the world is wrong, and
//! nothing is to be learnt from it), where we are behind the paper, and where we are behind our own last figure. It
//! falls short where it is behind what we reach for: `make papers` says so, `make papers-full` fails for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::report::number;

/// One result, a line of its experiment's table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Unique in its experiment.
    pub what: String,
    pub unit: &'static str,
    pub better: Better,
    pub paper: Option<Paper>,
    /// The paper's own algorithm, in our world, on the same seeds.
    pub baseline: Option<Baseline>,
    /// `None`: the row is there to show that the world is right.
    pub ours: Option<f64>,
    pub reach: Option<f64>,
    /// So much worse than last time is nothing but other dice.
    pub slack: Slack,
    /// Ours.
    pub cost: Option<Cost>,
    /// What else is to be known; may be empty.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
    /// It is only told: neither the paper's figure nor a last one is compared.
    Neither,
}

/// The paper's figure, and by how much ours may be worse because the paper's is not known any better.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    pub figure: f64,
    pub give: f64,
}

impl Baseline {
    /// Known to plus or minus `by`.
    pub fn about(value: f64, by: f64) -> Option<Baseline> {
        Some(Baseline { value, within: Some(value - by..=value + by), cost: None })
    }

    /// To look at.
    pub fn told(value: f64) -> Option<Baseline> {
        Some(Baseline { value, within: None, cost: None })
    }
}

impl Paper {
    pub fn exactly(figure: f64) -> Option<Paper> {
        Some(Paper { figure, give: 0.0 })
    }
}

#[derive(Clone, Debug)]
pub struct Baseline {
    pub value: f64,
    /// How sure that is: the paper is reproduced if its figure lies in here. `None` where it has no such figure.
    pub within: Option<RangeInclusive<f64>>,
    pub cost: Option<Cost>,
}

/// What one member sends in one second, IP and UDP headers and the envelope included.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub packets: f64,
    pub bytes: f64,
}

#[derive(Clone, Copy, Debug)]
pub enum Slack {
    By(f64),
    /// It depends on the machine: it is told, and never fails.
    Machine,
}

/// The rows of one experiment.
pub struct Table {
    /// A word; the name by which it is asked for.
    pub name: &'static str,
    /// What is done, by whom, in a line or two.
    pub about: String,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Reached,
    FallsShort,
    NotReproduced,
    BehindPaper,
    BehindLast(f64),
    /// `BRUIT_UPDATE=1` accepts it.
    NoLast,
}

impl Row {
    /// Less is better, and nothing else is known of it yet.
    pub fn new(what: impl Into<String>, unit: &'static str) -> Row {
        Row {
            what: what.into(),
            unit,
            better: Better::Less,
            paper: None,
            baseline: None,
            ours: None,
            reach: None,
            slack: Slack::By(0.0),
            cost: None,
            note: String::new(),
        }
    }

    /// Ours alone, which may differ by two per cent another time.
    pub fn ours(what: impl Into<String>, unit: &'static str, ours: f64) -> Row {
        Row { ours: Some(ours), slack: Slack::By(ours.abs() * 0.02), ..Row::new(what, unit) }
    }

    pub fn verdict(&self, last: Option<f64>) -> Verdict {
        let within = self.baseline.as_ref().and_then(|b| b.within.as_ref());
        if let (Some(range), Some(paper)) = (within, self.paper) {
            if !range.contains(&paper.figure) {
                return Verdict::NotReproduced;
            }
        }
        let Some(ours) = self.ours else { return Verdict::Reached };
        let short = self.reach.is_some_and(|reach| self.is_worse(ours, reach, 0.0));
        let Slack::By(slack) = self.slack else {
            return if short { Verdict::FallsShort } else { Verdict::Reached };
        };
        if self.paper.is_some_and(|paper| self.is_worse(ours, paper.figure, paper.give)) {
            return Verdict::BehindPaper;
        }
        match last {
            None if self.better != Better::Neither => Verdict::NoLast,
            Some(last) if self.is_worse(ours, last, slack) => Verdict::BehindLast(last),
            _ if short => Verdict::FallsShort,
            _ => Verdict::Reached,
        }
    }

    fn is_worse(&self, ours: f64, than: f64, give: f64) -> bool {
        // The last digits are not what is compared.
        let give = give + than.abs() * 1e-9;
        match self.better {
            Better::Less => ours > than + give,
            Better::More => ours < than - give,
            Better::Neither => false,
        }
    }

    /// Whether it has a figure that is compared with the next one.
    fn is_kept(&self) -> bool {
        self.ours.is_some() && self.better != Better::Neither && matches!(self.slack, Slack::By(_))
    }

    fn cells(&self, verdict: &Verdict) -> [String; 9] {
        let sign = match self.better {
            Better::Less => "≤ ",
            Better::More => "≥ ",
            Better::Neither => "",
        };
        let baseline = self.baseline.as_ref();
        let cost = |pick: fn(&Cost) -> f64| match (baseline.and_then(|b| b.cost.as_ref()), &self.cost) {
            (None, None) => String::new(),
            (Some(theirs), None) => format!("{} / –", number(pick(theirs))),
            (None, Some(ours)) => format!("– / {}", number(pick(ours))),
            (Some(theirs), Some(ours)) => format!("{} / {}", number(pick(theirs)), number(pick(ours))),
        };
        let within = baseline.and_then(|b| b.within.as_ref());
        let reproduced = |b: &Baseline| match &b.within {
            Some(range) => format!("{} ({} to {})", number(b.value), number(*range.start()), number(*range.end())),
            None => number(b.value),
        };
        [
            self.what.clone(),
            self.unit.to_owned(),
            self.paper.map_or(String::new(), |paper| number(paper.figure)),
            baseline.map_or(String::new(), reproduced),
            self.ours.map_or(String::new(), number),
            self.reach.map_or(String::new(), |reach| format!("{sign}{}", number(reach))),
            cost(|c| c.packets),
            cost(|c| c.bytes),
            match verdict {
                Verdict::Reached if self.ours.is_none() && within.is_none() => "".to_owned(),
                Verdict::Reached if self.ours.is_none() => "reproduced".to_owned(),
                Verdict::Reached if self.reach.is_none() => "".to_owned(),
                Verdict::Reached => "reached".to_owned(),
                Verdict::FallsShort => "falls short".to_owned(),
                Verdict::NotReproduced => "NOT REPRODUCED".to_owned(),
                Verdict::BehindPaper => "BEHIND THE PAPER".to_owned(),
                Verdict::BehindLast(last) => format!("BEHIND LAST TIME: {}", number(*last)),
                Verdict::NoLast => "NEW".to_owned(),
            },
        ]
    }
}

const HEADS: [&str; 9] =
    ["", "unit", "paper", "its algorithm here", "ours", "reach", "packets/s", "bytes/s", "verdict"];

impl Table {
    /// As Markdown, which reads as well on a terminal.
    pub fn text(&self, verdicts: &[Verdict]) -> String {
        let lines: Vec<[String; 9]> = self.rows.iter().zip(verdicts).map(|(row, v)| row.cells(v)).collect();
        let used: Vec<usize> = (0..HEADS.len()).filter(|&c| c == 0 || lines.iter().any(|l| !l[c].is_empty())).collect();
        let width = |c: usize| {
            let cells = lines.iter().map(|l| l[c].chars().count());
            cells.chain([HEADS[c].chars().count(), 3]).max().expect("there is the heading")
        };
        let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cell: &dyn Fn(usize) -> String| {
            for &c in &used {
                let (cell, width) = (cell(c), widths[c]);
                match c {
                    0 | 1 | 8 => write!(text, "| {cell:<width$} "),
                    _ => write!(text, "| {cell:>width$} "),
                }
                .expect("writing into a string");
            }
            text.push_str("|\n");
        };
        line(&|c| HEADS[c].to_owned());
        line(&|c| match c {
            0 | 1 | 8 => "-".repeat(widths[c]),
            _ => "-".repeat(widths[c] - 1) + ":",
        });
        for cells in &lines {
            line(&|c| cells[c].clone());
        }
        let notes: Vec<&Row> = self.rows.iter().filter(|row| !row.note.is_empty()).collect();
        if !notes.is_empty() {
            text.push('\n');
        }
        for row in notes {
            writeln!(text, "- {}: {}", row.what, row.note).expect("writing into a string");
        }
        text
    }
}

/// The figures that were accepted last, by `short` or `full`, experiment, and row.
pub struct Last {
    mode: &'static str,
    lines: BTreeMap<(String, String, String), f64>,
}

impl Last {
    pub fn read(mode: &'static str) -> Last {
        let text = std::fs::read_to_string(path()).unwrap_or_default();
        let mut lines = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let cells: Vec<&str> = line.split(" | ").collect();
            let &[mode, table, what, value] = cells.as_slice() else { panic!("last.txt: {line}") };
            let value = value.parse().unwrap_or_else(|_| panic!("last.txt, no number: {line}"));
            lines.insert((mode.to_owned(), table.to_owned(), what.to_owned()), value);
        }
        Last { mode, lines }
    }

    pub fn of(&self, table: &Table, row: &Row) -> Option<f64> {
        self.lines.get(&(self.mode.to_owned(), table.name.to_owned(), row.what.clone())).copied()
    }

    /// Rows that were measured then and are not now.
    pub fn missing(&self, table: &Table) -> Vec<String> {
        let mine = self.lines.keys().filter(|(mode, name, _)| mode == self.mode && name == table.name);
        mine.map(|(_, _, what)| what.clone()).filter(|what| !table.rows.iter().any(|r| r.what == *what)).collect()
    }

    /// Accepts what was measured now.
    pub fn update(&mut self, tables: &[Table]) {
        for table in tables {
            self.lines.retain(|(mode, name, _), _| mode != self.mode || name != table.name);
            for row in table.rows.iter().filter(|row| row.is_kept()) {
                let key = (self.mode.to_owned(), table.name.to_owned(), row.what.clone());
                self.lines.insert(key, row.ours.expect("it is kept"));
            }
        }
        let mut text =
            "# Accepted figures: run, experiment, row, ours. `BRUIT_UPDATE=1 make papers` accepts new ones.\n"
                .to_owned();
        for ((mode, name, what), value) in &self.lines {
            writeln!(text, "{mode} | {name} | {what} | {value:.6}").expect("writing into a string");
        }
        std::fs::write(path(), text).expect("last.txt can be written");
    }
}

/// Puts the tables into docs/PAPERS.md, each between its own two marks.
pub fn write_down(tables: &[Table], last: &Last) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/PAPERS.md");
    let mut text = std::fs::read_to_string(&path).expect("docs/PAPERS.md is there");
    for table in tables {
        let (begin, end) = (format!("<!-- {} -->\n", table.name), "<!-- end -->");
        let from = text.find(&begin).unwrap_or_else(|| panic!("docs/PAPERS.md has no {begin}")) + begin.len();
        let to = from + text[from..].find(end).unwrap_or_else(|| panic!("docs/PAPERS.md: no end of {begin}"));
        let verdicts: Vec<Verdict> = table.rows.iter().map(|row| row.verdict(last.of(table, row))).collect();
        text.replace_range(from..to, &format!("{}\n\n{}", table.about, table.text(&verdicts)));
    }
    std::fs::write(path, text).expect("docs/PAPERS.md can be written");
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/papers/last.txt")
}
