//! `make counts` refuses what it should, and says when it cannot know: its table, without valgrind.

#[path = "../benches/counts/table.rs"]
mod table;
// What the table takes its numbers' looks from.
#[path = "../benches/report/mod.rs"]
mod report;

use table::{Answer, Table};

const PAGE: &str =
    "# Figures\n\n| a | b |\n|---|---:|\n| before | 1 |\n\n<!-- counts -->\n<!-- end -->\n\n| after | 2 |\n";

fn table(rows: &[(&str, u64)]) -> Table {
    let rows = rows.iter().map(|(what, count)| (what.to_string(), *count)).collect();
    Table { made: "rustc 1.90.0 (of a test), glibc 2.36".to_owned(), rows }
}

/// The line about a path, and the answer to all of it.
fn judge(kept: &Table, now: &Table, what: &str) -> (String, Answer) {
    let (text, answer) = now.beside(kept);
    let line = text.lines().find(|line| line.starts_with(what)).expect("each path has a line");
    (line.to_owned(), answer)
}

#[test]
fn a_path_that_takes_11_percent_more_is_refused_and_named() {
    let kept = table(&[("a ping", 1_000), ("a table", 20_000)]);
    let (line, answer) = judge(&kept, &table(&[("a ping", 1_110), ("a table", 20_000)]), "a ping");
    assert_eq!(answer, Answer::Fails);
    assert!(line.contains("1,110") && line.contains("kept 1,000: +11.0 %: MORE"), "{line}");
    let (line, _) = judge(&kept, &table(&[("a ping", 1_110), ("a table", 20_000)]), "a table");
    assert!(line.ends_with("20,000  as kept"), "{line}");
}

#[test]
fn a_path_that_takes_9_percent_more_passes_and_so_does_one_that_takes_less() {
    let kept = table(&[("a ping", 1_000)]);
    for (now, said) in [(1_090, "+9.0 %"), (1_100, "+10.0 %"), (1_000, "as kept"), (500, "-50.0 %")] {
        let (line, answer) = judge(&kept, &table(&[("a ping", now)]), "a ping");
        assert_eq!(answer, Answer::Holds, "{now}");
        assert!(line.ends_with(said), "{line}");
    }
}

#[test]
fn a_path_that_only_one_of_the_tables_has_is_refused() {
    let (one, two) = (table(&[("a ping", 1_000)]), table(&[("a ping", 1_000), ("a pong", 1_000)]));
    let (line, answer) = judge(&one, &two, "a pong");
    assert!(answer == Answer::Fails && line.ends_with("NEW"), "{line}");
    let (line, answer) = judge(&two, &one, "a pong");
    assert!(answer == Answer::Fails && line.ends_with("NO LONGER COUNTED"), "{line}");
}

#[test]
fn where_another_compiler_made_the_table_there_is_no_answer_but_what_to_do() {
    let kept = table(&[("a ping", 1_000)]);
    for count in [1_000, 2_000] {
        let now = Table { made: "rustc 1.91.0 (of a test), glibc 2.36".to_owned(), ..table(&[("a ping", count)]) };
        let (text, answer) = now.beside(&kept);
        assert_eq!(answer, Answer::None, "neither passed nor failed");
        assert!(text.contains("NOT COMPARED"), "{text}");
        assert!(text.contains(&kept.made) && text.contains(&now.made), "both are named: {text}");
        assert!(text.contains("BRUIT_UPDATE=1 make counts"), "{text}");
    }
}

#[test]
fn a_table_is_read_back_from_its_page_and_leaves_the_rest_of_it_alone() {
    let (first, second) = (table(&[("a ping", 999), ("a table: 1,000 members", 1_234_567)]), table(&[("a pong", 64)]));
    let page = first.put_into(PAGE);
    assert_eq!(Table::read(&page), first);
    let again = second.put_into(&page);
    assert_eq!(Table::read(&again), second);
    let (head, rest) = PAGE.split_once("<!-- end -->").expect("a mark");
    assert!(again.starts_with(head) && again.ends_with(rest));
    assert!(!again.contains("a ping"));
    assert_eq!(Table::read(PAGE).rows, []);
}

#[test]
fn the_kept_table_says_what_made_it() {
    let page = include_str!("../../docs/BENCHMARKS.md");
    let kept = Table::read(page);
    assert!(kept.made.starts_with("rustc 1.") && kept.rows.len() > 6, "{kept:?}");
    assert_eq!(kept.put_into(page), page);
}
